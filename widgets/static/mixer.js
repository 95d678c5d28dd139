import { frame, h, download } from "./frame.js";
import { loadClips } from "./clips.js";
import { Engine, levels, fromDb, renderOffline } from "./engine.js";
import { clickTrack } from "./click.js";
import { Looping } from "./mixer_loop.js";
import { QUIET, stemRow } from "./mixer_row.js";
import { colourOf } from "./palette.js";
import { wavFile } from "./bytes.js";

async function build(ui) {
  const clips = await loadClips(ui.model);
  if (ui.gone) return;
  const mixer = new Mixer(ui, clips);
  ui.mixer = mixer;
  mixer.lay();
}

class Mixer extends Looping {
  constructor(ui, clips) {
    super();
    this.ui = ui;
    this.rate = ui.get("_rate");
    this.duration = ui.get("_duration_s");
    this.beats = ui.get("_beats");
    this.downbeats = ui.get("_downbeats");
    this.stems = ui.get("_stems").map(({ name, versions }, i) => ({
      name, colour: colourOf(name, i),
      versions: versions.map((v) => ({ name: v.name, clip: clips.get(v.clip) })),
    }));
    const click = ui.get("_click_name");
    if (click) {
      const samples = clickTrack(this.beats, this.downbeats, this.duration, this.rate);
      const clip = { channels: [samples], length: samples.length, rate: this.rate };
      this.stems.push({ name: click, colour: null, versions: [{ name: "only", clip }] });
    }
    this.view = [0, this.duration];
    this.chosen = 0;
    this.engine = new Engine({
      tracks: this.tracks(), duration: this.duration, rate: this.rate, onEnd: () => this.stopped(),
    });
    this.engine.master = ui.get("_master");
  }

  // What each stem is set to, read from the traits.
  settings() {
    const [gain, mute, solo] = ["gain_db", "mute", "solo"].map((name) => this.ui.get(name));
    return this.stems.map(({ name }) => ({
      gain: fromDb(gain[name] ?? 0), mute: mute.includes(name), solo: solo.includes(name),
    }));
  }

  versionOf(stem) {
    const name = this.ui.get("version")[stem.name];
    return Math.max(0, stem.versions.findIndex((version) => version.name === name));
  }

  tracks() {
    const heard = levels(this.settings());
    return this.stems.map((stem, i) => ({
      name: stem.name, versions: stem.versions, version: this.versionOf(stem), level: heard[i],
    }));
  }

  // --- layout --------------------------------------------------------------------------------

  lay() {
    const { ui } = this;
    this.playButton = h("button", { type: "button", onclick: () => this.toggle() }, "Play");
    this.startButton = h("button", { type: "button", onclick: () => this.go(0) }, "To start");
    this.time = h("span", { class: "stage-time" });
    this.loopButton = h("button", { type: "button", onclick: () => this.toggleLoop() }, "Loop");
    const bars = this.downbeats.length;
    const field = (name) => h("input", {
      type: "number", min: 1, max: bars, value: 1, "aria-label": `${name} bar of the loop`,
      onchange: () => this.loopFromFields(),
    });
    this.fields = bars ? [field("First"), field("Last")] : [];
    if (bars) this.fields[1].value = Math.min(2, bars);
    const mix = h("button", { type: "button", onclick: () => this.saveMix() }, "Download mix");
    const bar = h("div", { class: "stage-bar" }, this.playButton, this.startButton, this.time,
      this.loopButton, bars ? h("span", { class: "stage-together" }, "bars", this.fields[0], "to", this.fields[1]) : null, mix);
    this.ruler = h("canvas", {
      class: "stage-ruler", role: "slider", tabindex: "0", "aria-label": "Position; drag to set a loop",
      "aria-valuemin": "0", "aria-valuemax": this.duration.toFixed(2), "aria-valuenow": "0",
    });
    this.rows = this.stems.map((stem, i) => stemRow(this, stem, i));
    this.head = h("div", { class: "stage-head", "aria-hidden": "true" });
    const side = h("div", { class: "stage-side stage-time" });
    this.area = h("div", { class: "stage-mixer" },
      h("div", { class: "stage-row" }, side, this.ruler), ...this.rows.map((row) => row.node), this.head);
    ui.body.append(bar, this.area);
    if (ui.get("note")) ui.body.append(h("p", { class: "stage-note" }, ui.get("note")));

    for (const name of ["gain_db", "mute", "solo", "version"]) ui.watch(name, () => this.refresh());
    ui.watch("loop_s", (loop) => this.showLoop(loop));
    ui.hear("play", () => this.play());
    ui.hear("pause", () => this.pause());
    ui.hear("seek", ({ position_s }) => this.go(position_s));
    this.dragRuler();
    const seen = new ResizeObserver(() => this.redraw());
    seen.observe(this.area);
    ui.theme(() => this.redraw());
    ui.end(() => {
      seen.disconnect();
      cancelAnimationFrame(this.ticking);
      this.engine.close();
    });
    this.redraw();
    this.tick();
  }

  // --- what is shown -------------------------------------------------------------------------

  refresh() {
    if (this.ui.gone) return;
    const settings = this.settings();
    const heard = levels(settings);
    const gains = this.ui.get("gain_db");
    this.stems.forEach((stem, i) => {
      const row = this.rows[i], gain = gains[stem.name] ?? 0, version = this.versionOf(stem);
      row.mute.setAttribute("aria-pressed", settings[i].mute);
      row.solo.setAttribute("aria-pressed", settings[i].solo);
      row.gain.value = gain;
      row.db.textContent = gain <= QUIET ? "off" : `${gain > 0 ? "+" : ""}${gain.toFixed(0)} dB`;
      row.gain.setAttribute("aria-valuetext", row.db.textContent);
      if (row.pick) row.pick.value = version;
      if (this.engine.tracks[i].level !== heard[i]) this.engine.setLevel(i, heard[i]);
      if (this.engine.tracks[i].version !== version) this.engine.setVersion(i, version);
    });
    this.redraw();
  }

  tick() {
    if (this.ui.gone) return;
    const at = this.place();
    if (!this.engine.playing) {
      this.ticking = 0;
      return;
    }
    const second = Math.floor(at);
    if (second !== this.toldSecond) {
      this.toldSecond = second;
      this.tell(at);
    }
    this.ticking = requestAnimationFrame(() => this.tick());
  }

  tell(at = this.engine.position()) {
    this.ui.set({ playing: this.engine.playing, position_s: at });
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
      this.ui.say("");
      setTimeout(() => {
        const state = this.engine.context?.state;
        if (this.engine.playing && state === "suspended" && !this.ui.gone)
          this.refused();
      }, 600);
      this.tell();
      cancelAnimationFrame(this.ticking);
      this.tick();
    });
  }

  refused() {
    this.pause();
    this.ui.say("The browser wants a click before the first sound: press Play.", true);
  }

  pause() {
    this.engine.pause();
    this.stopped();
  }

  stopped() {
    this.playButton.textContent = "Play";
    this.tell();
    this.place();
  }

  go(at) {
    this.engine.seek(at);
    this.place();
    this.tell();
  }

  choose(i) {
    this.chosen = i;
    this.rows.forEach((row, n) => row.node.classList.toggle("stage-chosen", n === i));
  }

  step(move) {
    const n = this.stems.length;
    this.choose((this.chosen + move + n) % n);
    this.ui.say(`Chosen: ${this.stems[this.chosen].name}`);
  }

  flip(trait, name) {
    const now = this.ui.get(trait);
    this.ui.set({ [trait]: now.includes(name) ? now.filter((n) => n !== name) : [...now, name] });
  }

  flipChosen(trait) {
    this.flip(trait, this.stems[this.chosen].name);
  }

  turn(db) {
    const { name } = this.stems[this.chosen], gains = this.ui.get("gain_db");
    const value = Math.max(QUIET, Math.min(12, (gains[name] ?? 0) + db));
    this.ui.set({ gain_db: { ...gains, [name]: value } });
  }

  pickVersion(stem, n) {
    this.ui.set({ version: { ...this.ui.get("version"), [stem.name]: stem.versions[n].name } });
  }

  nextVersion() {
    const some = [this.stems[this.chosen], ...this.stems].find((stem) => stem.versions.length > 1);
    if (some) this.pickVersion(some, (this.versionOf(some) + 1) % some.versions.length);
  }

  // One beat or one bar back or on; a second where there are no beats.
  jump(direction, bars) {
    const marks = bars && this.downbeats.length ? this.downbeats : this.beats;
    const at = this.engine.position();
    if (!marks.length) return this.go(at + direction);
    const next = direction > 0
      ? marks.find((time) => time > at + 0.02)
      : [...marks].reverse().find((time) => time < at - (this.engine.playing ? 0.25 : 0.02));
    this.go(next ?? (direction > 0 ? this.duration : 0));
  }

  // --- files ---------------------------------------------------------------------------------

  saveStem(i) {
    const stem = this.stems[i], version = stem.versions[this.versionOf(stem)];
    const name = version.name === "only" ? stem.name : `${stem.name} ${version.name}`;
    download(wavFile(version.clip.channels, this.rate), `${name}.wav`);
  }

  async saveMix() {
    const channels = await renderOffline(this.tracks(), this.duration, this.rate, this.engine.master);
    download(wavFile(channels, this.rate), `${this.ui.get("label")}.wav`);
  }
}

function render(context) {
  let mixer;
  const act = (fn) => () => mixer && fn(mixer);
  return frame(context, {
    keys: [
      ["Space", "play or pause", act((m) => m.toggle())],
      ["ArrowLeft", "a beat back", act((m) => m.jump(-1, false))],
      ["ArrowRight", "a beat on", act((m) => m.jump(1, false))],
      ["Shift+ArrowLeft", "a bar back", act((m) => m.jump(-1, true))],
      ["Shift+ArrowRight", "a bar on", act((m) => m.jump(1, true))],
      ["Home", "to the start", act((m) => m.go(0))],
      ["ArrowUp", "choose the stem above", act((m) => m.step(-1))],
      ["ArrowDown", "choose the stem below", act((m) => m.step(1))],
      ["m", "mute it", act((m) => m.flipChosen("mute"))],
      ["s", "solo it", act((m) => m.flipChosen("solo"))],
      ["+ or =", "louder", act((m) => m.turn(1))],
      ["-", "softer", act((m) => m.turn(-1))],
      ["v", "its next version (A/B)", act((m) => m.nextVersion())],
      ["c", "click on or off", act((m) => m.ui.get("_click_name") && m.flip("mute", m.ui.get("_click_name")))],
      ["l", "loop on or off", act((m) => m.toggleLoop())],
      ["b", "loop from this bar on", act((m) => m.loopHere(false))],
      ["e", "loop to the end of this bar", act((m) => m.loopHere(true))],
      ["d", "download it", act((m) => m.saveStem(m.chosen))],
      ["x", "download the mix", act((m) => m.saveMix())],
    ],
    build: async (ui) => {
      await build(ui);
      mixer = ui.mixer;
    },
  });
}

export default { render };
