import { frame, h } from "./frame.js";
import { loadClips } from "./clips.js";
import { Engine } from "./engine.js";
import { Cells } from "./token_cells.js";
import { HEAD, ROW } from "./token_drawing.js";
import { Sounding } from "./token_sound.js";
import { clock } from "./wave.js";

async function build(ui) {
  const clips = await loadClips(ui.model);
  if (ui.gone) return;
  ui.grid = new Grid(ui, clips);
  ui.grid.lay();
}

class Grid extends Sounding {
  constructor(ui, clips) {
    super();
    this.ui = ui;
    this.cells = new Cells(ui.get("_tokens"), ui.get("_sizes"));
    this.sounds = new Map(clips); // codebooks as "0,1" -> clip
    const whole = clips.get(this.all().join(","));
    this.rate = ui.get("_rate");
    this.duration = whole ? whole.length / whole.rate : 0;
    if (whole) this.sounds.set("", { channels: [new Float32Array(whole.length)], length: whole.length, rate: whole.rate });
    this.wide = 32;
    this.view = [0, 1];
    this.engine = whole && new Engine({
      tracks: this.tracks(), duration: this.duration, rate: this.rate, onEnd: () => this.stopped(),
    });
  }

  // --- layout --------------------------------------------------------------------------------

  lay() {
    const { ui, cells } = this;
    const button = (text, label, fn) => h("button", { type: "button", "aria-label": label, title: label, onclick: fn }, text);
    this.back = button("◀", "One step of the delay back", () => this.move(-1));
    this.on = button("▶", "One step of the delay on", () => this.move(1));
    this.delayText = h("span", { class: "stage-delay" });
    this.stage = h("span", { class: "stage-soft" });
    const masks = [["attention", "attention mask"], ["loss", "loss mask"]].map(([name, text]) => {
      const node = h("button", { type: "button", onclick: () => this.flipMask(name) }, text);
      return [name, node];
    });
    this.maskButtons = new Map(masks);
    this.zoom = h("input", {
      type: "range", min: "0", max: "100", value: "0", "aria-label": "Columns in the window", oninput: () => {
        const all = cells.columns(this.delay()), near = Math.min(12, all);
        this.look(this.middle(), near * (all / near) ** (1 - this.zoom.value / 100));
      },
    });
    ui.body.append(
      h("div", { class: "stage-bar" }, h("span", {}, "Delay"), this.back, this.delayText, this.on, this.stage),
      h("div", { class: "stage-bar" }, ...masks.map(([, node]) => node), h("label", {}, "zoom", this.zoom), this.legend()),
    );
    this.canvas = h("canvas", { class: "stage-cells", role: "img", style: `height:${HEAD + ROW * cells.k + 2}px` });
    this.overview = h("canvas", { class: "stage-overview", role: "img", "aria-label": "The whole sequence; the frame is the window above" });
    this.head = h("div", { class: "stage-head", "aria-hidden": "true" });
    this.readout = h("p", { class: "stage-readout", "aria-live": "polite" });
    ui.body.append(h("div", { class: "stage-tokens" }, this.canvas, this.overview, this.head), this.readout);
    if (this.engine) this.layPlayer();
    this.listen();
    for (const name of ["delay", "masks", "cursor"]) ui.watch(name, () => this.changed());
    const [k, column] = ui.get("cursor");
    this.look(cells.column(k, column - k - 1, this.delay()), this.wide);
    const seen = new ResizeObserver(() => this.redraw());
    seen.observe(this.canvas);
    ui.theme(() => this.redraw());
    ui.end(() => {
      seen.disconnect();
      cancelAnimationFrame(this.ticking);
      this.engine?.close();
    });
  }

  layPlayer() {
    const { ui } = this;
    this.playButton = h("button", { type: "button", onclick: () => this.toggle() }, "Play");
    this.bookButtons = this.all().map((k) => h("button", {
      type: "button", onclick: () => this.flipBook(k), title: `Codebook ${k} on or off`,
    }, `codebook ${k}`));
    this.time = h("span", { class: "stage-time" }, `${clock(0)} / ${clock(this.duration)}`);
    this.lostButton = h("button", { type: "button", onclick: () => this.flipLost(), title: "Hear what the others leave out" }, "what is lost");
    this.words = h("span", { class: "stage-soft" });
    ui.body.append(h("div", { class: "stage-bar" }, this.playButton, this.time, ...this.bookButtons, this.lostButton), this.words);
    ui.hear("decoded", (content, buffers) => this.arrived(content.codebooks.join(","), buffers?.[0]));
    for (const name of ["codebooks", "lost"]) ui.watch(name, () => this.hear());
  }

  listen() {
    const { canvas, overview } = this;
    canvas.addEventListener("pointermove", (event) => {
      const place = this.placeAt(event);
      this.readout.textContent = place ? this.cells.describe(...place, this.delay()) : this.told;
    });
    canvas.addEventListener("pointerleave", () => { this.readout.textContent = this.told; });
    canvas.addEventListener("click", (event) => {
      const place = this.placeAt(event);
      if (place) this.choose(...place);
    });
    const drag = (event) => {
      const all = this.cells.columns(this.delay());
      const box = overview.getBoundingClientRect();
      this.look(((event.clientX - box.left) / box.width) * all, this.wide);
    };
    overview.addEventListener("pointerdown", (event) => {
      overview.setPointerCapture?.(event.pointerId);
      overview.addEventListener("pointermove", drag);
      drag(event);
    });
    for (const end of ["pointerup", "pointercancel"])
      overview.addEventListener(end, () => overview.removeEventListener("pointermove", drag));
  }

  // --- state ---------------------------------------------------------------------------------

  delay() {
    return this.ui.get("delay");
  }

  // The cursor is kept as a step of the whole delay; here as the column that is shown.
  cursor() {
    const [k, step] = this.ui.get("cursor");
    const frame = step - k - 1, { cells } = this, delay = this.delay();
    return [k, Math.max(0, Math.min(cells.columns(delay) - 1, cells.column(k, frame, delay)))];
  }

  choose(k, column) {
    const { cells } = this, delay = this.delay();
    k = Math.max(0, Math.min(cells.k - 1, k));
    column = Math.max(0, Math.min(cells.columns(delay) - 1, column));
    const step = Math.max(0, Math.min(cells.s - 1, cells.frame(k, column, delay) + k + 1));
    this.ui.set({ cursor: [k, step] });
    const [from, to] = this.view, at = this.cursor()[1];
    if (at < from || at >= to) this.look(at, this.wide);
  }

  step(rows, columns) {
    const [k, column] = this.cursor();
    this.choose(k + rows, column + columns);
  }

  move(by) {
    const delay = Math.max(0, Math.min(this.cells.k, this.delay() + by));
    this.ui.set({ delay });
    this.ui.say(this.cells.stage(delay));
  }

  flipMask(name) {
    const now = this.ui.get("masks");
    this.ui.set({ masks: (now.includes(name) ? now.filter((n) => n !== name) : [...now, name]).sort() });
  }

  flipBook(k) {
    if (!this.engine || k >= this.cells.k) return;
    const now = this.ui.get("codebooks");
    this.ui.set({ codebooks: (now.includes(k) ? now.filter((n) => n !== k) : [...now, k]).sort((a, b) => a - b) });
  }

  changed() {
    const { cells } = this, delay = this.delay(), masks = this.ui.get("masks");
    this.delayText.textContent = `${delay} of ${cells.k}`;
    this.stage.textContent = cells.stage(delay);
    this.back.disabled = delay === 0;
    this.on.disabled = delay === cells.k;
    for (const [name, node] of this.maskButtons) {
      node.setAttribute("aria-pressed", masks.includes(name));
      this.keys[name].hidden = !masks.includes(name);
    }
    this.told = cells.describe(...this.cursor(), delay);
    this.readout.textContent = this.told;
    this.canvas.setAttribute("aria-label", `Tokens, ${cells.k} codebooks by ${cells.columns(delay)} columns. Chosen: ${this.told}`);
    this.look(this.middle(), this.wide);
  }

}

export default {
  render(context) {
    const state = {};
    const grid = () => state.ui?.grid;
    const act = (fn) => (event) => grid() && fn(grid(), event);
    const digits = Array.from({ length: 10 }, (_, k) => String(k)).join(" or ");
    return frame(context, {
      keys: [
        ["ArrowLeft", "one column back", act((g) => g.step(0, -1))],
        ["ArrowRight", "one column on", act((g) => g.step(0, 1))],
        ["ArrowUp", "codebook above", act((g) => g.step(-1, 0))],
        ["ArrowDown", "codebook below", act((g) => g.step(1, 0))],
        ["Home", "first column", act((g) => g.choose(g.cursor()[0], 0))],
        ["End", "last column", act((g) => g.choose(g.cursor()[0], g.cells.s))],
        ["c", "to the context token", act((g) => g.choose(0, g.cells.column(0, g.cells.width - 1, g.delay())))],
        ["[ or ]", "one step of the delay back or on", act((g, e) => g.move(e.key === "[" ? -1 : 1))],
        ["a", "attention mask", act((g) => g.flipMask("attention"))],
        ["l", "loss mask", act((g) => g.flipMask("loss"))],
        ["+ or -", "fewer or more columns", act((g, e) => g.look(g.cursor()[1], g.wide * (e.key === "+" ? 0.6 : 1.7)))],
        ["Space", "play or pause", act((g) => g.toggle())],
        ["p", "play from the chosen frame", act((g) => g.fromCursor())],
        ["d", "hear what is lost, or what stays", act((g) => g.engine && g.flipLost())],
        [digits, "codebook on or off", act((g, e) => g.flipBook(Number(e.key)))],
      ],
      build: (ui) => {
        state.ui = ui;
        return build(ui);
      },
    });
  },
};
