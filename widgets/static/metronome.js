import { frame, h, download } from "./frame.js";
import { loadClips } from "./clips.js";
import { Engine } from "./engine.js";
import { clickTrack } from "./click.js";
import { Curve, round } from "./metronome_curve.js";
import { beatGrid, offbeatTimes, tempoOfTaps } from "./tempo.js";
import { clock } from "./wave.js";
import { wavFile } from "./bytes.js";

const OFFBEAT_LEVEL = 0.25;
const SOURCE = ["bpm", "beats_per_bar", "duration_s", "swing", "offbeats", "start_s", "curve"];

class Pad extends Curve {
  constructor(ui) {
    super();
    this.ui = ui;
    this.clips = new Map();
    this.taps = [];
    this.point = 0;
    this.compute();
    this.engine = new Engine({
      tracks: this.tracks(), duration: this.duration, rate: this.rate, onEnd: () => this.stopped(),
    });
  }

  // --- what is heard -------------------------------------------------------------------------

  compute() {
    const [bpm, perBar, duration, swing, offbeats, start, curve] = SOURCE.map((n) => this.ui.get(n));
    this.rate = this.ui.get("_rate");
    Object.assign(this, { duration, curve, bpm, perBar });
    Object.assign(this, beatGrid({ bpm, curve, perBar, duration, start }));
    this.click = clickTrack(this.beats, this.downbeats, duration, this.rate);
    if (offbeats) {
      const soft = clickTrack(offbeatTimes(this.beats, swing), [], duration, this.rate);
      this.click = this.click.map((x, i) => Math.max(-1, Math.min(1, x + OFFBEAT_LEVEL * soft[i])));
    }
  }

  tracks() {
    const level = this.clickBox && !this.clickBox.checked ? 0 : 1;
    const clip = { channels: [this.click], length: this.click.length, rate: this.rate };
    const tracks = [{ name: "click", versions: [{ name: "only", clip }], level }];
    const made = this.clips.get("result");
    if (made) tracks.push({ name: "result", versions: [{ name: "only", clip: made }], level: 1 });
    return tracks;
  }

  changed() {
    this.compute();
    this.engine.rate = this.rate;
    this.engine.setTracks(this.tracks(), this.duration);
    this.show();
  }

  // --- layout --------------------------------------------------------------------------------

  lay() {
    const { ui } = this;
    const button = (text, fn, more = {}) => h("button", { type: "button", onclick: fn, ...more }, text);
    this.playButton = button("Play", () => this.toggle());
    this.tapButton = button("Tap", () => this.tap(), { title: "Tap the tempo (key t)" });
    this.time = h("span", { class: "stage-time" });
    this.lamps = h("div", { class: "stage-pad-lamps", "aria-hidden": "true" });
    ui.body.append(h("div", { class: "stage-bar" }, this.playButton, this.tapButton, this.time, this.lamps));

    this.controls = {};
    const control = (trait, text, attributes, unit = "") => {
      const range = attributes.type === "range";
      const input = h("input", { ...attributes, onchange: () => set(), oninput: range ? () => set() : null });
      const set = () => {
        const value = Number(input.value);
        if (input.value === "" || !Number.isFinite(value)) return this.show();
        const low = Number(attributes.min), high = Number(attributes.max);
        ui.set({ [trait]: Math.max(low, Math.min(high, value)) });
      };
      const shown = range ? h("output", {}) : null;
      this.controls[trait] = { input, shown, unit };
      return h("label", { class: "stage-control" }, h("span", {}, text), input, shown || unit);
    };
    this.offBox = h("input", { type: "checkbox", onchange: () => ui.set({ offbeats: this.offBox.checked }) });
    ui.body.append(h("div", { class: "stage-pad" },
      control("bpm", "Tempo", { type: "number", min: 20, max: 400, step: 0.1 }, "bpm"),
      control("beats_per_bar", "Metre", { type: "number", min: 1, max: 16, step: 1 }, "beats"),
      control("duration_s", "Duration", { type: "number", min: 0.5, max: 120, step: 0.5 }, "s"),
      control("start_s", "First bar at", { type: "number", min: -120, max: 120, step: 0.01 }, "s"),
      h("label", { class: "stage-control" }, h("span", {}, "Off-beats"), this.offBox, "soft clicks"),
      control("swing", "Swing", { type: "range", min: 0.5, max: 0.75, step: 0.01 }),
    ));

    this.curveCanvas = h("canvas", {
      class: "stage-curve", tabindex: "0", role: "slider", "aria-valuemin": "20", "aria-valuemax": "400",
      "aria-label": "Tempo curve: draw it, or use the arrow keys",
      onkeydown: (event) => this.curveKey(event),
    });
    this.straight = button("One tempo", () => ui.set({ curve: [] }), { title: "Forget the curve" });
    ui.body.append(this.curveCanvas, h("div", { class: "stage-bar" },
      h("span", {}, "Draw a tempo curve above, or"), this.straight,
      button("Download click", () => download(wavFile([this.click], this.rate), `${ui.get("label")}.wav`))));
    this.drawByHand();
    if (ui.get("_can_generate")) this.layGenerate(button);

    for (const name of SOURCE) ui.on(`change:${name}`, () => this.later());
    ui.hear("play", () => this.play());
    ui.hear("pause", () => this.pause());
    const seen = new ResizeObserver(() => this.show());
    seen.observe(this.curveCanvas);
    ui.theme(() => this.show());
    ui.end(() => {
      seen.disconnect();
      cancelAnimationFrame(this.ticking);
      cancelAnimationFrame(this.soon);
      this.engine.close();
    });
    this.show();
  }

  layGenerate(button) {
    const { ui } = this;
    this.words = h("input", { type: "text", onchange: () => ui.set({ description: this.words.value }) });
    this.make = button("Generate on this click", () => {
      ui.set({ description: this.words.value });
      ui.send("generate");
    });
    this.cancelButton = button("Cancel", () => ui.send("cancel"));
    this.bar = h("progress", { max: 1, value: 0, "aria-label": "Progress" });
    this.clickBox = h("input", { type: "checkbox", checked: true, onchange: () => this.mixClick() });
    this.save = button("Download it", () =>
      download(wavFile(this.clips.get("result").channels, this.clips.get("result").rate), "generated.wav"));
    this.after = h("span", { class: "stage-bar" },
      h("label", {}, this.clickBox, "hear the click with it"), this.save);
    ui.body.append(
      h("div", { class: "stage-bar" },
        h("label", { class: "stage-pad-words" }, "Words", this.words), this.make, this.cancelButton, this.bar),
      this.after);
    ui.watch("description", (text) => { if (document.activeElement !== this.words) this.words.value = text; });
    // Without a word on how far it is, the bar only says that it is at work.
    const showProgress = () => {
      if (ui.get("busy") && !ui.get("progress")) this.bar.removeAttribute("value");
      else this.bar.value = ui.get("progress");
    };
    ui.watch("progress", showProgress);
    ui.watch("busy", (busy) => {
      showProgress();
      this.bar.hidden = !busy;
      this.make.disabled = busy;
      this.cancelButton.disabled = !busy;
      if (busy) ui.say("Generating…");
      else if (!ui.get("message")) ui.say(this.clips.size ? "Done: press Play." : "");
    });
    ui.watch("_sent", () => this.hearResult());
  }

  async hearResult() {
    const clips = await loadClips(this.ui.model);
    if (this.ui.gone) return;
    this.clips = clips;
    this.after.hidden = !clips.has("result");
    this.changed();
    if (clips.has("result")) this.ui.say("Done: press Play.");
  }

  mixClick() {
    this.engine.setLevel(0, this.clickBox.checked ? 1 : 0);
  }

  later() {
    if (!this.soon) this.soon = requestAnimationFrame(() => {
      this.soon = 0;
      if (!this.ui.gone) this.changed();
    });
  }

  // --- what is shown -------------------------------------------------------------------------

  show() {
    const { ui } = this;
    for (const [trait, { input, shown, unit }] of Object.entries(this.controls)) {
      const value = ui.get(trait);
      if (document.activeElement !== input || input.type === "range") input.value = round(value);
      if (shown) shown.textContent = `${Math.round(100 * value)} %${unit}`;
    }
    this.offBox.checked = ui.get("offbeats");
    this.controls.bpm.input.disabled = this.curve.length > 0;
    this.straight.disabled = !this.curve.length;
    if (this.lamps.childElementCount !== this.perBar)
      this.lamps.replaceChildren(...Array.from({ length: this.perBar }, () => h("span")));
    this.drawCurve();
    this.place();
  }

  place() {
    const at = this.engine.position();
    this.time.textContent = `${clock(at)} / ${clock(this.duration)}`;
    const beat = this.beats.filter((time) => time <= at + 1e-3).length - 1;
    const near = this.engine.playing && beat >= 0 && at - this.beats[beat] < 0.15;
    const bar = this.downbeats.filter((time) => time <= at + 1e-3).at(-1);
    // Beats before the first downbeat are counted backwards.
    const first = this.downbeats.length ? this.beats.indexOf(this.downbeats[0]) : 0;
    const n = bar === undefined ? this.perBar - (first - beat) : beat - this.beats.indexOf(bar);
    [...this.lamps.children].forEach((lamp, i) => lamp.classList.toggle("stage-lit", near && i === n));
  }

  tick() {
    if (this.ui.gone) return;
    this.place();
    this.ticking = this.engine.playing ? requestAnimationFrame(() => this.tick()) : 0;
  }

  // --- what is done --------------------------------------------------------------------------

  toggle() {
    if (this.engine.playing) this.pause();
    else this.play();
  }

  play() {
    this.ui.guard(() => {
      this.engine.play();
      this.playButton.textContent = "Pause";
      this.ui.set({ playing: true });
      this.tick();
    });
  }

  pause() {
    this.engine.pause();
    this.stopped();
  }

  stopped() {
    this.playButton.textContent = "Play";
    this.ui.set({ playing: false });
    this.place();
  }

  tap() {
    this.taps = [...this.taps, performance.now() / 1000].slice(-16);
    const bpm = tempoOfTaps(this.taps);
    if (bpm) this.ui.set({ bpm, curve: [] });
    this.ui.say(bpm ? `${bpm} bpm` : "Tap again, on the beat.");
  }

  // From the traits: keys that are pressed fast come before the next frame has drawn anything.
  faster(bpm) {
    if (this.ui.get("curve").length) return;
    this.ui.set({ bpm: Math.max(20, Math.min(400, Math.round(this.ui.get("bpm") + bpm))) });
  }
}

function render(context) {
  let pad;
  const act = (fn) => () => pad && fn(pad);
  return frame(context, {
    keys: [
      ["Space", "play or pause", act((p) => p.toggle())],
      ["t", "tap the tempo", act((p) => p.tap())],
      ["ArrowUp or +", "faster", act((p) => p.faster(1))],
      ["ArrowDown or -", "slower", act((p) => p.faster(-1))],
      ["Home", "to the start", act((p) => { p.engine.seek(0); p.place(); })],
      ["g", "generate on this click", act((p) => p.make && !p.make.disabled && p.make.click())],
      ["Escape", "cancel it", act((p) => p.ui.get("busy") && p.ui.send("cancel"))],
    ],
    build(ui) {
      pad = new Pad(ui);
      pad.lay();
    },
  });
}

export default { render };
