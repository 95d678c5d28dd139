import { quantile } from "./attention_map.js";
import { fit, peaks, drawGrid, drawWave } from "./wave.js";
import { cividis, colourOf } from "./palette.js";

const SHADES = Uint8ClampedArray.from({ length: 1024 }, (_, i) => [...cividis((i >> 2) / 255), 255][i & 3]);
const ORANGE = "#E69F00";
// the brightest colour is this quantile of a map
const EACH = 0.995;
// or this attention, on one scale for all heads
const ONE = 0.1;

// What the attention viewer draws and says; attention.js lays it out and reacts.
export class Drawing {
  title() {
    const [layer, head] = this.chosen();
    return layer < 0 ? "Mean of all heads" : `Layer ${layer}${head < 0 ? ", mean of its heads" : ` head ${head}`}`;
  }

  scoreText() {
    const [layer, head] = this.chosen(), { scores, map } = this;
    const i = map.layers.indexOf(layer), j = [...map.heads, -1].indexOf(head);
    const found = layer < 0 ? scores.all : [scores.diagonal[i][j], scores.chance[i][j]];
    const [score, chance] = found.map((x) => `${Math.round(100 * x)} %`);
    return `${score} of what it gives to the context lies within ${map.tolerance_s} s of the target's own time; by chance ${chance}.`;
  }

  stepText() {
    const time = this.ui.get("time_s");
    return `At ${time.toFixed(2)} s of the target${this.barText(time)}: ${this.map.describe(...this.chosen(), this.map.rowAt(time))}`;
  }

  barText(at) {
    const bar = this.downbeats.filter((time) => time <= at + 1e-3).length;
    if (!bar) return "";
    const beat = this.beats.filter((t) => t >= this.downbeats[bar - 1] - 1e-3 && t <= at + 1e-3).length;
    return ` (bar ${bar}.${beat})`;
  }

  paintMap() {
    const { map } = this, values = map.all(...this.chosen());
    const top = Math.max(this.oneScale ? ONE : quantile(values, EACH), 1e-9);
    const paint = this.picture.getContext("2d"), image = paint.createImageData(map.r, map.c);
    values.forEach((value, i) => {
      const shade = 4 * Math.min(255, Math.round(255 * Math.sqrt(value / top)));
      // the context runs upwards
      const at = (map.c - 1 - (i % map.c)) * map.r + Math.floor(i / map.c);
      image.data.set(SHADES.subarray(shade, shade + 4), 4 * at);
    });
    paint.putImageData(image, 0, 0);
  }

  // Beats faintly, downbeats strongly: draw(time) for each.
  lines(paint, colour, [faint, strong], draw) {
    paint.fillStyle = colour;
    for (const [times, alpha] of [[this.beats, faint], [this.downbeats, strong]]) {
      paint.globalAlpha = alpha;
      times.forEach(draw);
    }
    paint.globalAlpha = 1;
  }

  // The chosen time as a line over a drawing `seconds` wide.
  mark({ paint, width, height }, seconds, top = 0) {
    paint.fillStyle = ORANGE;
    paint.fillRect((this.ui.get("time_s") / seconds) * width - 1, top, 2, height);
  }

  redraw() {
    if (this.drawing || this.ui.gone) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = 0;
      this.colour = getComputedStyle(this.ui.root).color;
      this.drawMain();
      this.drawHeads();
      this.drawLeft();
      this.mark(this.wave(this.below, this.target, "drums", this.map.target_s, 1), this.map.target_s);
      this.drawProfile();
    });
  }

  drawMain() {
    const drawn = fit(this.main), { paint, width, height } = drawn, { map } = this, time = this.ui.get("time_s");
    paint.imageSmoothingEnabled = false;
    const x = (t) => (t / map.target_s) * width, y = (t) => height - (t / map.context_s) * height;
    const high = height - y(map.c * map.column_s);
    paint.drawImage(this.picture, 0, height - high, x(map.r * map.column_s), high);
    this.lines(paint, "#fff", [0.16, 0.45], (t) => {
      if (t < map.target_s) paint.fillRect(Math.round(x(t)), 0, 1, height);
      if (t < map.context_s) paint.fillRect(0, Math.round(y(t)), width, 1);
    });
    this.mark(drawn, map.target_s);
    if (time >= map.context_s) return;
    // its own time in the context
    paint.strokeStyle = ORANGE;
    paint.lineWidth = 2;
    paint.beginPath();
    paint.arc(x(time), y(time), 6, 0, 7);
    paint.stroke();
  }

  drawHeads() {
    const { paint, width, height } = fit(this.heads), { map, scores } = this, [layer, head] = this.chosen();
    const w = width / (map.h + 1), tall = height / map.l;
    paint.font = "11px system-ui, sans-serif";
    paint.textAlign = "center";
    paint.textBaseline = "middle";
    map.layers.forEach((l, i) => [...map.heads, -1].forEach((n, j) => {
      const value = scores.diagonal[i][j];
      paint.fillStyle = `rgb(${cividis(value)})`;
      paint.fillRect(j * w + (n < 0 ? 4 : 0), i * tall, w - (n < 0 ? 5 : 1), tall - 1);
      if (w > 26 && tall > 13) {
        paint.fillStyle = value > 0.5 ? "#000" : "#fff";
        paint.fillText(Math.round(100 * value), j * w + w / 2, i * tall + tall / 2);
      }
      if (l === layer && n === head) {
        paint.strokeStyle = "#D55E00";
        paint.lineWidth = 3;
        paint.strokeRect(j * w + (n < 0 ? 5 : 1), i * tall + 1, w - (n < 0 ? 7 : 3), tall - 3);
      }
    }));
    this.heads.setAttribute("aria-label", `Scores of ${map.l} layers of ${map.h} heads. Chosen: ${this.title()}`);
  }

  // The context's waveform, turned so that it runs upwards beside the map.
  drawLeft() {
    const { paint, width, height } = fit(this.left), { map, context } = this, half = width / 2;
    if (context) {
      const ends = peaks(context.channels[0], Math.floor(height), 0, context.rate * map.context_s);
      const scale = half * this.scaleOf(context);
      paint.fillStyle = colourOf("mix");
      for (let i = 0; i < height - 1; i++) {
        const low = ends[2 * i] * scale, high = ends[2 * i + 1] * scale;
        paint.fillRect(half + low, height - 1 - i, Math.max(1, high - low), 1);
      }
    }
    this.lines(paint, this.colour, [0.25, 0.7], (t) => paint.fillRect(0, Math.round(height - (t / map.context_s) * height), width, 1));
  }

  // A clip from left to right over its beats.
  wave(canvas, clip, name, seconds, scale, faint) {
    const view = [0, seconds];
    const drawn = clip
      ? drawWave(canvas, clip, { colour: colourOf(name), view, scale: scale * this.scaleOf(clip), faint }) : fit(canvas);
    drawGrid(drawn, { beats: this.beats, downbeats: this.downbeats, view, colour: this.colour });
    return drawn;
  }

  scaleOf(clip) {
    clip.top ??= Math.max(0.05, quantile(peaks(clip.channels[0], 800).map(Math.abs), 0.999));
    return 1 / clip.top;
  }

  // The context from left to right, and over it what the chosen step looks at.
  drawProfile() {
    const { map } = this, drawn = this.wave(this.profile, this.context, "mix", map.context_s, 0.7, true);
    const { paint, width, height } = drawn, time = this.ui.get("time_s");
    const row = map.row(...this.chosen(), map.rowAt(time)), top = Math.max(...row) || 1;
    const x = (t) => (t / map.context_s) * width, w = Math.max(1.5, x(map.column_s));
    paint.fillStyle = "#D55E00";
    row.forEach((value, c) => {
      const tall = Math.sqrt(value / top) * (height - 16);
      if (tall > 0.5) paint.fillRect(x(c * map.column_s), height - tall, w, tall);
    });
    paint.fillStyle = this.colour;
    paint.font = "11px system-ui, sans-serif";
    paint.textBaseline = "top";
    paint.fillText("what this step looks at in the context (square roots)", 4, 1);
    if (time < map.context_s) this.mark(drawn, map.context_s, 14);
  }
}
