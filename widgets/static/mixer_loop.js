import { Drawing } from "./mixer_drawing.js";

// The mixer's loop: by the button, by the two fields, by a drag over the ruler.
export class Looping extends Drawing {
  toggleLoop() {
    const loop = this.ui.get("loop_s");
    if (loop) this.ui.set({ loop_s: null });
    else if (this.lastLoop) this.ui.set({ loop_s: this.lastLoop });
    else if (this.fields.length) this.loopFromFields();
    else this.ui.set({ loop_s: [0, this.duration] });
  }

  barEnd(bar) {
    return bar < this.downbeats.length ? this.downbeats[bar] : this.duration;
  }

  loopFromFields() {
    const n = this.downbeats.length;
    const [first, last] = this.fields.map((f) => Math.max(1, Math.min(n, Math.round(Number(f.value)) || 1)));
    this.setLoop(this.downbeats[Math.min(first, last) - 1], this.barEnd(Math.max(first, last)));
  }

  setLoop(from, to) {
    if (to - from >= 0.1) this.ui.set({ loop_s: [from, Math.min(to, this.duration)] });
  }

  showLoop(loop) {
    if (loop) this.lastLoop = loop;
    this.engine.setLoop(loop);
    this.loopButton.setAttribute("aria-pressed", Boolean(loop));
    if (loop && this.fields.length) {
      const first = this.downbeats.filter((time) => time <= loop[0] + 1e-3).length;
      const last = this.downbeats.filter((time) => time < loop[1] - 1e-3).length;
      this.fields[0].value = Math.max(1, first);
      this.fields[1].value = Math.max(1, last);
    }
    this.redraw();
    this.place();
  }

  // The loop begins, or ends, with the bar that is played now; without bars at this very time.
  loopHere(end) {
    const at = this.engine.position(), bars = this.downbeats;
    const bar = bars.filter((time) => time <= at + 1e-3).length;
    const start = bars.length ? (bars[bar - 1] ?? 0) : at, stop = bars.length ? this.barEnd(bar) : at;
    const [from, to] = this.ui.get("loop_s") || [0, this.duration];
    if (end) this.setLoop(from < stop - 0.1 ? from : bars.length ? start : 0, stop);
    else this.setLoop(start, to > start + 0.1 ? to : bars.length ? stop : this.duration);
  }

  timeAt(event, canvas) {
    const box = canvas.getBoundingClientRect();
    const part = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    return part * this.duration;
  }

  // A press on the ruler goes there; a drag loops the bars (or beats, or the time) it passes.
  dragRuler() {
    let from = null;
    const marks = this.downbeats.length ? this.downbeats : this.beats;
    const below = (time) => [...marks].reverse().find((mark) => mark <= time + 1e-3) ?? 0;
    const above = (time) => marks.find((mark) => mark >= time - 1e-3) ?? this.duration;
    this.ruler.addEventListener("pointerdown", (event) => {
      from = event.clientX;
      this.ruler.setPointerCapture(event.pointerId);
    });
    this.ruler.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const [a, b] = [{ clientX: from }, event].map((e) => this.timeAt(e, this.ruler)).sort((x, y) => x - y);
      const dragged = Math.abs(event.clientX - from) > 6;
      from = null;
      if (!dragged) this.go(b);
      else if (marks.length) this.setLoop(below(a), above(b));
      else this.setLoop(a, b);
    });
    this.ruler.addEventListener("pointercancel", () => { from = null; });
  }
}
