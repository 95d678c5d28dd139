// Tempo -> beats, as stage_lite.metronome.beat_grid does it; and tempo by tapping.

/** Beats and downbeats in seconds. curve: [[time, bpm], ...], empty for the one tempo bpm. */
export function beatGrid({ bpm, curve = [], perBar, duration, start = 0 }) {
  let numbered;
  if (!curve.length) {
    const first = Math.ceil((-start * bpm) / 60 - 1e-9);
    const last = Math.ceil(((duration - start) * bpm) / 60 - 1e-9);
    numbered = [];
    for (let n = first; n < last; n++) numbered.push([n, start + (n * 60) / bpm]);
  } else {
    numbered = alongCurve(curve, duration, start);
  }
  const bar = ([n]) => ((n % perBar) + perBar) % perBar === 0;
  const time = ([, t]) => Math.max(0, t);
  return { beats: numbered.map(time), downbeats: numbered.filter(bar).map(time) };
}

function alongCurve(curve, duration, start) {
  const begin = Math.min(0, start), end = Math.max(duration, start);
  const n = Math.max(2, Math.trunc((end - begin) * 1000) + 1);
  const corners = curve.map(([t]) => t).filter((t) => t > begin && t < end);
  const even = Array.from({ length: n }, (_, i) => begin + ((end - begin) * i) / (n - 1));
  const grid = [...new Set([...even, ...corners])].sort((a, b) => a - b);
  const tempi = grid.map((t) => tempoAt(curve, t));
  const phase = [0];
  for (let i = 1; i < grid.length; i++)
    phase.push(phase[i - 1] + ((grid[i] - grid[i - 1]) * (tempi[i] + tempi[i - 1])) / 120);
  const zero = between(grid, phase, start);
  const found = [];
  let i = 1;
  for (let k = Math.ceil(phase[0] - zero - 1e-9); k <= phase.at(-1) - zero + 1e-9; k++) {
    while (i < phase.length - 1 && phase[i] - zero < k) i++;
    const part = (k + zero - phase[i - 1]) / (phase[i] - phase[i - 1]);
    const time = grid[i - 1] + Math.max(0, Math.min(1, part)) * (grid[i] - grid[i - 1]);
    if (time > -1e-9 && time < duration - 1e-9) found.push([k, time]);
  }
  return found;
}

function between(xs, ys, x) {
  const i = Math.max(1, Math.min(xs.length - 1, xs.findIndex((value) => value >= x)));
  return ys[i - 1] + ((ys[i] - ys[i - 1]) * (x - xs[i - 1])) / (xs[i] - xs[i - 1]);
}

/** The tempo of a curve at a time: straight lines, held before the first and after the last point. */
export function tempoAt(curve, time) {
  if (time <= curve[0][0]) return curve[0][1];
  for (let i = 1; i < curve.length; i++) {
    const [t0, b0] = curve[i - 1], [t1, b1] = curve[i];
    if (time <= t1) return b0 + ((b1 - b0) * (time - t0)) / (t1 - t0);
  }
  return curve.at(-1)[1];
}

/** Between each two beats, at `swing` of the way. */
export function offbeatTimes(beats, swing) {
  return beats.slice(1).map((time, i) => beats[i] + swing * (time - beats[i]));
}

/** Tempo of taps (times in seconds): the median of the last eight steps, a pause begins anew. */
export function tempoOfTaps(taps) {
  let from = 0;
  for (let i = 1; i < taps.length; i++) if (taps[i] - taps[i - 1] > 2.5) from = i;
  const last = taps.slice(from).slice(-9);
  if (last.length < 2) return null;
  const steps = last.slice(1).map((t, i) => t - last[i]).sort((a, b) => a - b);
  const middle = steps.length >> 1;
  const step = steps.length % 2 ? steps[middle] : (steps[middle - 1] + steps[middle]) / 2;
  return Math.max(20, Math.min(400, Math.round(600 / step) / 10));
}
