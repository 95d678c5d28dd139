import { h } from "./frame.js";
import { windowOf } from "./token_cells.js";
import { fit } from "./wave.js";
import { cividis } from "./palette.js";

// pixels of a codebook's row, and of the line above the rows
export const ROW = 26;
export const HEAD = 18;
const ORANGE = "#E69F00", GREEN = "#009E73";

// What the token grid draws, and which part of it; tokens.js lays it out and reacts.
export class Drawing {
  legend() {
    const item = (style, text) => h("span", { class: "stage-key" }, h("i", { style, "aria-hidden": "true" }), text);
    const [low, high] = [0.1, 0.9].map((x) => `rgb(${cividis(x)})`);
    this.keys = { attention: item("background:#D55E00", "hidden from other steps"), loss: item(`background:${GREEN}`, "counts in the loss") };
    return h("span", { class: "stage-legend" },
      item(`background:linear-gradient(90deg,${low},${high})`, `code 0 to ${this.cells.card - 1}`),
      item("background:repeating-linear-gradient(45deg,#999 0 2px,transparent 2px 5px)", "special"),
      item(`background:${ORANGE}`, "context token"), ...Object.values(this.keys));
  }

  placeAt(event) {
    const box = this.canvas.getBoundingClientRect(), [from, to] = this.view;
    const k = Math.floor((event.clientY - box.top - HEAD) / ROW);
    const column = from + Math.floor(((event.clientX - box.left) / box.width) * (to - from));
    return k >= 0 && k < this.cells.k && column >= from && column < to ? [k, column] : null;
  }

  middle() {
    return (this.view[0] + this.view[1]) / 2;
  }

  look(column, wide) {
    const all = this.cells.columns(this.delay());
    this.wide = Math.max(Math.min(12, all), Math.min(all, wide));
    this.view = windowOf(column, this.wide, all);
    this.redraw();
  }

  redraw() {
    if (this.drawing || this.ui.gone) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = 0;
      const all = this.cells.columns(this.delay()), near = Math.min(12, all);
      this.zoom.value = all > near ? 100 * (1 - Math.log(this.wide / near) / Math.log(all / near)) : 0;
      this.drawCells();
      this.drawOverview();
      this.place();
    });
  }

  colour(cell) {
    return cell.kind === "token" ? ORANGE : `rgb(${cividis(cell.id / (this.cells.card - 1))})`;
  }

  drawCells() {
    const { cells, view: [from, to] } = this, delay = this.delay();
    const { paint, width } = fit(this.canvas), style = getComputedStyle(this.ui.root);
    const wide = width / (to - from), masks = this.ui.get("masks"), heard = this.engine ? this.ui.get("codebooks") : this.all();
    const x = (column) => (column - from) * wide, gap = wide > 5 ? 1 : 0;
    paint.font = "11px system-ui, sans-serif";
    paint.textBaseline = "middle";
    for (let k = 0; k < cells.k; k++) {
      for (let column = from; column < to; column++) {
        const cell = cells.at(k, column, delay), top = HEAD + k * ROW;
        paint.globalAlpha = heard.includes(k) || cell.kind !== "code" ? 1 : 0.25;
        if (masks.includes("attention") && cell.masked) paint.globalAlpha *= 0.35;
        if (cell.kind === "special") this.hatch(paint, x(column), top, wide - gap, ROW - 3, style.color);
        else {
          paint.fillStyle = this.colour(cell);
          paint.fillRect(x(column), top, Math.max(1, wide - gap), ROW - 3);
        }
        if (wide >= 22 && cell.kind !== "special") {
          const bright = cell.kind === "token" || cell.id > 0.55 * cells.card;
          paint.fillStyle = bright ? "#000" : "#fff";
          paint.textAlign = "center";
          paint.fillText(cell.kind === "token" ? "C" : cell.id, x(column) + (wide - gap) / 2, top + ROW / 2 - 1);
        }
        paint.globalAlpha = 1;
        if (masks.includes("loss") && cell.loss) {
          paint.fillStyle = GREEN;
          paint.fillRect(x(column), top + ROW - 7, Math.max(1, wide - gap), 4);
        }
      }
    }
    if (masks.includes("attention") && delay === cells.k) {
      paint.fillStyle = "#D55E00";
      for (let column = from; column < to; column++)
        if (!cells.attention[column]) paint.fillRect(x(column), HEAD - 4, Math.max(1, wide), 3);
    }
    this.drawParts(paint, x, width, style);
    const [k, column] = this.cursor();
    if (column >= from && column < to) {
      paint.strokeStyle = style.color;
      paint.lineWidth = 2;
      paint.strokeRect(x(column), HEAD + k * ROW - 1, Math.max(3, wide - gap), ROW - 1);
    }
  }

  drawParts(paint, x, width, style) {
    paint.textAlign = "left";
    for (const [start, end, name] of this.cells.parts(this.delay())) {
      const left = Math.max(0, x(start)), right = Math.min(width, x(end));
      if (right <= left) continue;
      paint.fillStyle = name === "token" ? ORANGE : style.color;
      paint.fillRect(left, 0, 1, HEAD - 5);
      const text = name === "token" ? "C" : name;
      if (right - left > paint.measureText(text).width + 5) paint.fillText(text, left + 4, 7);
    }
  }

  hatch(paint, x, y, w, h, colour) {
    paint.save();
    paint.globalAlpha *= 0.45;
    paint.fillStyle = colour;
    paint.fillRect(x, y + h / 2, Math.max(1, w), 1);
    if (w > 8) {
      paint.beginPath();
      paint.arc(x + w / 2, y + h / 2, 2.5, 0, 7);
      paint.fill();
    }
    paint.restore();
  }

  drawOverview() {
    const { cells } = this, delay = this.delay(), all = cells.columns(delay);
    const { paint, width, height } = fit(this.overview), row = (height - 4) / cells.k, heard = this.ui.get("codebooks");
    const pixels = Math.floor(width);
    for (let k = 0; k < cells.k; k++) {
      paint.globalAlpha = heard.includes(k) || !this.engine ? 1 : 0.25;
      for (let x = 0; x < pixels; x++) {
        const first = Math.floor((x / pixels) * all), last = Math.max(first + 1, Math.floor(((x + 1) / pixels) * all));
        let cell = cells.at(k, first, delay);
        for (let c = first + 1; c < last && cell.kind !== "token"; c++) cell = cells.at(k, c, delay);
        if (cell.kind === "special") continue;
        paint.fillStyle = this.colour(cell);
        paint.fillRect(x, 2 + k * row, cell.kind === "token" ? 3 : 1, row - 1);
      }
    }
    paint.globalAlpha = 1;
    paint.strokeStyle = getComputedStyle(this.ui.root).color;
    paint.lineWidth = 2;
    const [from, to] = this.view;
    paint.strokeRect((from / all) * width + 1, 1, ((to - from) / all) * width - 2, height - 2);
  }
}
