// The click of stage_lite.metronome.click_track, on the same samples.
const CLICK_HZ = 1000;
const CLICK_S = 0.1;

/** Beats and downbeats in seconds -> Float32Array; downbeats are added a second time, then clipped. */
export function clickTrack(beats, downbeats, duration, rate) {
  const length = Math.round(duration * rate);
  const n = Math.round(CLICK_S * rate);
  const sum = new Float64Array(length + n);
  for (const times of [beats, downbeats || []]) {
    for (const time of times) {
      const start = Math.trunc(time * rate);
      if (start < 0 || start >= length) continue;
      for (let i = 0; i < n; i++)
        sum[start + i] += 2 ** ((-10 * i) / (n - 1)) * Math.sin(((2 * Math.PI * CLICK_HZ) / rate) * i);
    }
  }
  return Float32Array.from(sum.subarray(0, length), (x) => Math.max(-1, Math.min(1, x)));
}
