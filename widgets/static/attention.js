import { frame, h } from "./frame.js";
import { loadClips } from "./clips.js";
import { Engine } from "./engine.js";
import { AttentionMap, bytesOfClip, readAloud, stepAloud, asLoudAs } from "./attention_map.js";
import { Drawing } from "./attention_drawing.js";

const SOUNDS = { target: "target", context: "context", head: "what the head reads" };

async function build(ui) {
  const clips = await loadClips(ui.model);
  if (ui.gone) return;
  ui.viewer = new Viewer(ui, clips);
  ui.viewer.lay();
}

class Viewer extends Drawing {
  constructor(ui, clips) {
    super();
    this.ui = ui;
    this.map = new AttentionMap(bytesOfClip(clips.get("map")), ui.get("_map"));
    this.context = clips.get("context");
    this.target = clips.get("target");
    this.scores = ui.get("_scores");
    this.beats = ui.get("_beats");
    this.downbeats = ui.get("_downbeats");
    this.rate = ui.get("_rate");
    this.duration = this.map.target_s;
    this.oneScale = false;
    this.picture = h("canvas", { width: this.map.r, height: this.map.c });
    this.names = Object.keys(SOUNDS).filter((name) => this[name === "head" ? "context" : name]);
    if (this.names.length) this.engine = new Engine({
      tracks: this.tracks(), duration: this.duration, rate: this.rate, onEnd: () => this.stopped(),
    });
  }

  tracks() {
    const heard = this.ui.get("sounds");
    return this.names.map((name) => ({
      name, level: Number(heard.includes(name)), versions: [{ name, clip: name === "head" ? this.reading() : this[name] }],
    }));
  }

  // What the chosen head reads, as sound; made when it is wanted.
  reading() {
    const { map } = this, [layer, head] = this.chosen(), key = `${layer} ${head}`;
    if (!this.ui.get("sounds").includes("head")) return { channels: [new Float32Array(1)], length: 1, rate: this.rate };
    if (this.read?.key !== key) {
      const samples = this.context.channels[0], step = Math.round(map.column_s * this.rate);
      const raw = readAloud(map.all(layer, head), map.r, map.c, samples, step, Math.round(this.duration * this.rate));
      this.read = { key, channels: [asLoudAs(raw, samples)], length: raw.length, rate: this.rate };
    }
    return this.read;
  }

  chosen() {
    return [this.ui.get("layer"), this.ui.get("head")];
  }

  // --- layout --------------------------------------------------------------------------------

  lay() {
    const { ui, map } = this;
    const pick = (name, all, values) => h("select", {
      "aria-label": name, onchange: (event) => this.pick({ [name]: Number(event.target.value) }),
    }, h("option", { value: -1 }, all), ...values.map((n) => h("option", { value: n }, `${name} ${n}`)));
    this.layerPick = pick("layer", "all layers", map.layers);
    this.headPick = pick("head", "mean of heads", map.heads);
    this.next = h("button", { type: "button", onclick: () => this.nextAligned() }, "Next aligned head");
    this.scaleButton = h("button", { type: "button", "aria-pressed": "false", onclick: () => this.flipScale() }, "One colour scale");
    ui.body.append(h("div", { class: "stage-bar" }, this.layerPick, this.headPick, this.next, this.scaleButton));
    this.score = h("p", {});
    this.readout = h("p", { class: "stage-readout" });
    const canvas = (name, label) => h("canvas", { class: `stage-att-${name}`, role: "img", "aria-label": label });
    this.heads = canvas("heads", "");
    this.left = canvas("left", "Context, upwards: waveform and beats");
    this.main = canvas("main", "");
    this.below = canvas("below", "Target: waveform and beats");
    this.profile = canvas("profile", "");
    this.heads.style.height = `${Math.min(300, 16 + 20 * map.l)}px`;
    this.main.style.aspectRatio = `${map.target_s} / ${Math.max(map.context_s, map.target_s / 4)}`;
    const side = h("div", { class: "stage-att-side" },
      h("p", { class: "stage-soft" }, "Percent near the own time. Rows are layers, columns heads, the last one their mean."), this.heads, this.score, this.readout);
    const area = h("div", { class: "stage-att-area" },
      h("span", { class: "stage-att-corner stage-soft" }, "context ↑"), this.left, this.main,
      h("span", { class: "stage-soft" }, "target"), this.below);
    ui.body.append(h("div", { class: "stage-att" }, area, side), this.profile);
    if (this.engine) this.layPlayer();
    this.listen();
    for (const name of ["layer", "head"]) ui.watch(name, () => this.showHead());
    ui.watch("time_s", () => this.showStep());
    const seen = new ResizeObserver(() => this.redraw());
    for (const node of [this.main, this.profile]) seen.observe(node);
    ui.theme(() => this.redraw());
    ui.end(() => {
      seen.disconnect();
      cancelAnimationFrame(this.ticking);
      this.step?.halt();
      this.engine?.close();
    });
  }

  layPlayer() {
    const { ui } = this;
    this.playButton = h("button", { type: "button", onclick: () => this.toggle() }, "Play");
    this.soundButtons = this.names.map((name) => h("button", { type: "button", onclick: () => this.flipSound(name) }, SOUNDS[name]));
    const one = this.context ? h("button", { type: "button", onclick: () => this.hearStep() }, "Hear this step") : null;
    ui.body.append(h("div", { class: "stage-bar" }, this.playButton, ...this.soundButtons, one));
    if (ui.get("note")) ui.body.append(h("p", { class: "stage-soft" }, ui.get("note")));
    ui.watch("sounds", (heard) => {
      this.names.forEach((name, i) => this.soundButtons[i].setAttribute("aria-pressed", heard.includes(name)));
      this.sound();
    });
  }

  listen() {
    const { map } = this;
    for (const canvas of [this.main, this.below]) {
      const go = (event) => this.go((event.offsetX / canvas.clientWidth) * map.target_s);
      canvas.addEventListener("pointerdown", (event) => {
        canvas.setPointerCapture?.(event.pointerId);
        canvas.addEventListener("pointermove", go);
        go(event);
      });
      for (const end of ["pointerup", "pointercancel"])
        canvas.addEventListener(end, () => canvas.removeEventListener("pointermove", go));
    }
    this.heads.addEventListener("click", ({ offsetX, offsetY }) => {
      const part = (at, whole, n) => Math.max(0, Math.min(n - 1, Math.floor((at / whole) * n)));
      const layer = map.layers[part(offsetY, this.heads.clientHeight, map.l)];
      this.pick({ layer, head: [...map.heads, -1][part(offsetX, this.heads.clientWidth, map.h + 1)] });
    });
  }

  // --- state ---------------------------------------------------------------------------------

  pick(values) {
    if (values.layer === -1) values.head = -1;
    else if (values.head >= 0 && this.chosen()[0] < 0) values.layer ??= this.map.layers[0];
    this.ui.set(values);
    this.ui.say(`${this.title()}. ${this.scoreText()}`);
  }

  turn(name, by) {
    const values = [-1, ...this.map[`${name}s`]], now = values.indexOf(this.ui.get(name));
    this.pick({ [name]: values[(now + by + values.length) % values.length] });
  }

  nextAligned() {
    const { order } = this.scores, now = order.findIndex((place) => String(place) === String(this.chosen()));
    const [layer, head] = order[(now + 1) % order.length];
    this.pick({ layer, head });
  }

  flipScale() {
    this.oneScale = !this.oneScale;
    this.scaleButton.setAttribute("aria-pressed", this.oneScale);
    this.paintMap();
    this.redraw();
  }

  go(time) {
    time = Math.max(0, Math.min(this.map.target_s - 1e-6, time));
    if (this.engine?.playing) this.engine.seek(time);
    else if (this.engine) this.engine.offset = time;
    this.ui.model.set("time_s", Number(time.toFixed(4)));
    // a drag would send every pixel
    clearTimeout(this.telling);
    this.telling = setTimeout(() => this.ui.gone || this.ui.model.save_changes(), 120);
  }

  jump(direction) {
    const now = this.ui.get("time_s");
    const found = direction > 0 ? this.beats.find((t) => t > now + 0.01) : this.beats.filter((t) => t < now - 0.01).pop();
    this.go(this.beats.length ? found ?? now : now + 0.5 * direction);
    this.ui.say(this.stepText());
  }

  nudge(direction) {
    this.go((this.map.rowAt(this.ui.get("time_s")) + direction + 0.5) * this.map.column_s);
    this.ui.say(this.stepText());
  }

  showHead() {
    const [layer, head] = this.chosen();
    this.layerPick.value = layer;
    this.headPick.value = layer < 0 ? -1 : head;
    this.score.replaceChildren(h("strong", {}, `${this.title()}: `), this.scoreText());
    this.main.setAttribute("aria-label", `Attention map of ${this.title()}. ${this.scoreText()}`);
    this.paintMap();
    this.sound();
    this.showStep();
  }

  showStep() {
    if (!this.readout) return;
    const text = this.stepText();
    this.readout.textContent = text;
    this.profile.setAttribute("aria-label", text);
    this.redraw();
  }

  // --- sound ---------------------------------------------------------------------------------

  sound() {
    if (!this.engine || !this.soundButtons) return;
    // several heads in a row: only the last is read
    clearTimeout(this.later);
    this.later = setTimeout(() => {
      if (this.ui.gone) return;
      this.ui.guard(() => this.engine.setTracks(this.tracks()));
    }, 60);
  }

  flipSound(name) {
    const now = this.ui.get("sounds");
    this.ui.set({ sounds: this.names.filter((n) => (n === name) !== now.includes(n)) });
  }

  toggle() {
    if (!this.engine) return;
    if (this.engine.playing) {
      this.engine.pause();
      return this.stopped();
    }
    this.step?.halt();
    this.engine.setTracks(this.tracks());
    this.engine.play(this.ui.get("time_s"));
    this.playButton.textContent = "Pause";
    this.ui.set({ playing: true });
    this.tick();
  }

  stopped() {
    this.playButton.textContent = "Play";
    this.ui.set({ playing: false, time_s: Number(Math.min(this.engine.offset, this.duration - 1e-4).toFixed(4)) });
    this.redraw();
  }

  tick() {
    cancelAnimationFrame(this.ticking);
    if (this.ui.gone || !this.engine.playing) return;
    const row = this.map.rowAt(this.engine.position());
    if (row !== this.shownRow) {
      this.shownRow = row;
      this.ui.model.set("time_s", Number(Math.min(this.duration - 1e-4, this.engine.position()).toFixed(4)));
    }
    this.ticking = requestAnimationFrame(() => this.tick());
  }

  // The context where this step looks, as loud as it looks; over and over it would be a nuisance.
  hearStep() {
    if (!this.context) return;
    if (this.engine.playing) this.toggle();
    const { map, rate } = this, row = map.row(...this.chosen(), map.rowAt(this.ui.get("time_s")));
    const { samples, from } = stepAloud(row, this.context.channels[0], Math.round(map.column_s * rate), Math.round(0.6 / map.column_s));
    this.step?.halt();
    this.engine.open();
    const clip = { channels: [samples], length: samples.length, rate };
    this.step = new Engine({
      tracks: [{ versions: [{ clip }] }], duration: samples.length / rate, rate, makeContext: () => this.engine.context,
    });
    this.step.play(0);
    this.ui.say(`Heard: the context from ${(from / rate).toFixed(2)} s on, as loud as this step looks at it.`);
  }
}

export default {
  render(context) {
    const state = {};
    const act = (fn) => (event) => state.ui?.viewer && fn(state.ui.viewer, event);
    return frame(context, {
      keys: [
        ["ArrowLeft", "one step back", act((v) => v.nudge(-1))],
        ["ArrowRight", "one step on", act((v) => v.nudge(1))],
        ["Shift+ArrowLeft", "one beat back", act((v) => v.jump(-1))],
        ["Shift+ArrowRight", "one beat on", act((v) => v.jump(1))],
        ["ArrowUp", "layer before", act((v) => v.turn("layer", -1))],
        ["ArrowDown", "layer after", act((v) => v.turn("layer", 1))],
        ["[ or ]", "head before or after", act((v, e) => v.turn("head", e.key === "[" ? -1 : 1))],
        ["n", "next aligned head", act((v) => v.nextAligned())],
        ["o", "one colour scale for all heads", act((v) => v.flipScale())],
        ["h", "hear this step", act((v) => v.hearStep())],
        ["Space", "play or pause", act((v) => v.toggle())],
      ],
      build: (ui) => {
        state.ui = ui;
        return build(ui);
      },
    });
  },
};
