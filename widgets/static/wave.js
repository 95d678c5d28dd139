// Waveforms and beat grids on a canvas; time runs from view[0] to view[1] seconds over its width.

/** Lowest and highest sample of each column: Float32Array of 2 * columns. */
export function peaks(samples, columns, from = 0, to = samples.length) {
  const result = new Float32Array(2 * columns);
  const step = (to - from) / columns;
  for (let x = 0; x < columns; x++) {
    const start = Math.max(0, Math.floor(from + x * step));
    const end = Math.min(samples.length, Math.max(start + 1, Math.floor(from + (x + 1) * step)));
    let low = 0, high = 0;
    for (let i = start; i < end; i++) {
      const value = samples[i];
      if (value < low) low = value;
      else if (value > high) high = value;
    }
    result[2 * x] = low;
    result[2 * x + 1] = high;
  }
  return result;
}

/** Fit a canvas to its place on the screen, sharp on every screen; its context in CSS pixels. */
export function fit(canvas) {
  const scale = globalThis.devicePixelRatio || 1;
  const width = Math.max(1, canvas.clientWidth), height = Math.max(1, canvas.clientHeight);
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const paint = canvas.getContext("2d");
  paint.setTransform(scale, 0, 0, scale, 0, 0);
  paint.clearRect(0, 0, width, height);
  return { paint, width, height };
}

// The last peaks of each clip: a fader that moves draws the same wave many times.
const known = new WeakMap();

function peaksOf(clip, columns, view) {
  const key = `${columns} ${view}`;
  if (known.get(clip)?.key !== key) {
    const ends = peaks(clip.channels[0], columns, view[0] * clip.rate, view[1] * clip.rate);
    known.set(clip, { key, ends });
  }
  return known.get(clip).ends;
}

/** One clip as a filled waveform; scale 1 fills the height with full scale. */
export function drawWave(canvas, clip, { colour, view, scale = 1, faint = false }) {
  const { paint, width, height } = fit(canvas);
  const columns = Math.max(1, Math.floor(width));
  const ends = peaksOf(clip, columns, view);
  paint.fillStyle = colour;
  paint.globalAlpha = faint ? 0.3 : 1;
  const middle = height / 2;
  for (let x = 0; x < columns; x++) {
    const top = Math.max(0, middle - ends[2 * x + 1] * scale * middle);
    const bottom = Math.min(height, middle - ends[2 * x] * scale * middle);
    paint.fillRect(x, top, 1, Math.max(1, bottom - top));
  }
  paint.globalAlpha = 1;
  return { paint, width, height };
}

/** Beats as thin lines, downbeats as strong ones; beats are left out where they would run together. */
export function drawGrid({ paint, width, height }, { beats, downbeats, view, colour }) {
  const x = (time) => ((time - view[0]) / (view[1] - view[0])) * width;
  paint.fillStyle = colour;
  const dense = beats.length > 1 && x(beats[1]) - x(beats[0]) < 4;
  for (const [times, alpha, line] of [[dense ? [] : beats, 0.22, 1], [downbeats, 0.6, 1]]) {
    paint.globalAlpha = alpha;
    for (const time of times)
      if (time >= view[0] && time <= view[1]) paint.fillRect(Math.round(x(time)), 0, line, height);
  }
  paint.globalAlpha = 1;
}

/** 83.25 -> "1:23.3" */
export function clock(seconds) {
  const tenths = Math.round(Math.max(0, seconds) * 10);
  const rest = tenths % 600;
  return `${Math.floor(tenths / 600)}:${String(Math.floor(rest / 10)).padStart(2, "0")}.${rest % 10}`;
}
