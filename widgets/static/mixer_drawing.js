import { drawWave, drawGrid, fit, clock } from "./wave.js";

// What the mixer draws: waves, ruler, playhead and the time; mixer.js lays it out and reacts.
export class Drawing {
  redraw() {
    if (this.waiting || this.ui.gone) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      if (this.ui.gone) return; // closed between two frames
      const colour = getComputedStyle(this.ui.root).color;
      const { beats, downbeats, view } = this;
      const peak = Math.max(0.05, ...this.stems.map((stem) => (stem.peak ??= loudest(stem))));
      this.stems.forEach((stem, i) => {
        const clip = stem.versions[this.versionOf(stem)].clip;
        const faint = this.engine.tracks[i].level === 0;
        const scale = Math.min(0.95 / peak, 4);
        const drawn = drawWave(this.rows[i].wave, clip, { colour: stem.colour || colour, view, scale, faint });
        drawGrid(drawn, { beats, downbeats, view, colour });
      });
      this.drawRuler(colour);
      this.place();
    });
  }

  drawRuler(colour) {
    const drawn = fit(this.ruler), { paint, width, height } = drawn;
    const x = (time) => (time / this.duration) * width;
    const loop = this.engine.loop || this.lastLoop;
    if (loop) {
      paint.fillStyle = "#0072B2";
      paint.globalAlpha = this.engine.loop ? 0.45 : 0.15;
      paint.fillRect(x(loop[0]), 0, Math.max(2, x(loop[1]) - x(loop[0])), height);
      paint.globalAlpha = 1;
    }
    drawGrid(drawn, { beats: [], downbeats: this.downbeats, view: this.view, colour });
    paint.fillStyle = colour;
    paint.font = "11px system-ui, sans-serif";
    paint.textBaseline = "middle";
    let free = -1;
    const marks = this.downbeats.length
      ? this.downbeats.map((time, i) => [time, String(i + 1)])
      : Array.from({ length: Math.ceil(this.duration) }, (_, i) => [i, `${i} s`]);
    for (const [time, text] of marks) {
      if (x(time) < free) continue;
      paint.fillText(text, x(time) + 3, height / 2);
      free = x(time) + paint.measureText(text).width + 10;
    }
  }

  // The playhead and the time; called in every frame while it plays.
  place() {
    const at = this.engine.position();
    const left = this.ruler.offsetLeft, width = this.ruler.clientWidth;
    this.head.style.transform = `translateX(${left + (at / this.duration) * width - 1}px)`;
    const text = `${clock(at)} / ${clock(this.duration)}${this.barText(at)}`;
    if (this.time.textContent !== text) {
      this.time.textContent = text;
      this.ruler.setAttribute("aria-valuenow", at.toFixed(2));
      this.ruler.setAttribute("aria-valuetext", text);
    }
    return at;
  }

  barText(at) {
    const bar = this.downbeats.filter((time) => time <= at + 1e-3).length;
    if (!bar) return "";
    const beat = this.beats.filter((t) => t >= this.downbeats[bar - 1] - 1e-3 && t <= at + 1e-3).length;
    return ` · bar ${bar}.${beat}`;
  }
}

function loudest(stem) {
  let peak = 0;
  if (!stem.colour) return 0; // the click does not set the scale
  for (const { clip } of stem.versions)
    for (const value of clip.channels[0]) if (Math.abs(value) > peak) peak = Math.abs(value);
  return peak;
}
