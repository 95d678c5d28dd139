import { tempoAt } from "./tempo.js";
import { fit } from "./wave.js";

// of a curve that is drawn by hand
const POINTS = 33;

export function round(value, to = 100) {
  return Math.round(value * to) / to;
}

// The tempo curve of the pad: how it looks, how it is drawn by hand and moved by keys.
export class Curve {
  limits() {
    const tempi = [this.bpm, ...this.curve.map(([, bpm]) => bpm)];
    return [Math.max(20, Math.min(60, ...tempi.map((b) => b - 10))), Math.min(400, Math.max(180, ...tempi.map((b) => b + 20)))];
  }

  drawCurve() {
    const { paint, width, height } = fit(this.curveCanvas);
    const colour = getComputedStyle(this.ui.root).color;
    const [low, high] = this.scale || this.limits();
    const x = (time) => (time / this.duration) * width;
    const y = (bpm) => height - ((bpm - low) / (high - low)) * height;
    paint.fillStyle = paint.strokeStyle = colour;
    paint.font = "11px system-ui, sans-serif";
    const strong = new Set(this.downbeats);
    for (const time of this.beats) {
      paint.globalAlpha = strong.has(time) ? 0.6 : 0.22;
      paint.fillRect(Math.round(x(time)), 0, 1, height);
    }
    for (let bpm = Math.ceil(low / 40) * 40; bpm < high; bpm += 40) {
      paint.globalAlpha = 0.25;
      paint.fillRect(0, Math.round(y(bpm)), width, 1);
      paint.globalAlpha = 0.85;
      paint.fillText(`${bpm}`, 3, y(bpm) - 3);
    }
    paint.globalAlpha = 1;
    paint.lineWidth = 2.5;
    paint.strokeStyle = "#D55E00";
    paint.beginPath();
    const line = this.curve.length ? this.curve : [[0, this.bpm]];
    for (let i = 0; i <= width; i += 2) paint.lineTo(i, y(tempoAt(line, (i / width) * this.duration)));
    paint.stroke();
    if (document.activeElement === this.curveCanvas) {
      const time = this.timeOf(this.point);
      paint.fillStyle = colour;
      paint.beginPath();
      paint.arc(x(time), y(tempoAt(line, time)), 5, 0, 7);
      paint.fill();
    }
    this.tellCurve(line);
  }

  tellCurve(line) {
    const time = this.timeOf(this.point), bpm = tempoAt(line, time);
    this.curveCanvas.setAttribute("aria-valuenow", bpm.toFixed(1));
    this.curveCanvas.setAttribute("aria-valuetext", `${bpm.toFixed(1)} bpm at ${time.toFixed(1)} s`);
  }

  timeOf(point) {
    return (point / (POINTS - 1)) * this.duration;
  }

  // The curve on evenly spread points, so that one of them can be moved.
  onPoints() {
    const curve = this.ui.get("curve"), line = curve.length ? curve : [[0, this.ui.get("bpm")]];
    return Array.from({ length: POINTS }, (_, i) => [round(this.timeOf(i), 1000), round(tempoAt(line, this.timeOf(i)))]);
  }

  drawByHand() {
    const canvas = this.curveCanvas;
    let points = null, last = null;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      const part = (v) => Math.max(0, Math.min(1, v));
      const [low, high] = this.scale;
      return [
        Math.round(part((event.clientX - box.left) / box.width) * (POINTS - 1)),
        round(Math.max(20, Math.min(400, high - part((event.clientY - box.top) / box.height) * (high - low)))),
      ];
    };
    const draw = (event) => {
      const [i, bpm] = at(event);
      const [j, before] = last || [i, bpm];
      for (let k = Math.min(i, j); k <= Math.max(i, j); k++)
        points[k][1] = i === j ? bpm : round(before + ((bpm - before) * (k - j)) / (i - j));
      last = [i, bpm];
      this.curve = points;
      this.drawCurve();
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.scale = this.limits();
      points = this.onPoints();
      last = null;
      draw(event);
    });
    canvas.addEventListener("pointermove", (event) => points && draw(event));
    const end = () => {
      if (!points) return;
      this.ui.set({ curve: points.map((point) => [...point]) });
      points = this.scale = null;
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("focus", () => this.drawCurve());
    canvas.addEventListener("blur", () => this.drawCurve());
  }

  curveKey(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key], turn = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!move && !turn) return;
    event.preventDefault();
    event.stopPropagation();
    if (move) {
      this.point = Math.max(0, Math.min(POINTS - 1, this.point + move));
      this.drawCurve();
      return;
    }
    const points = this.onPoints();
    const step = turn * (event.shiftKey ? 10 : 1);
    points[this.point][1] = Math.max(20, Math.min(400, points[this.point][1] + step));
    this.ui.set({ curve: points });
  }
}
