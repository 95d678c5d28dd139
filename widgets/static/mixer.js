import { frame, h, download } from "./frame.js";
import { loadClips } from "./clips.js";
import { Engine, levels, fromDb, renderOffline } from "./engine.js";
import { clickTrack } from "./click.js";
import { drawWave, drawGrid, fit, clock } from "./wave.js";
import { colourOf } from "./palette.js";
import { wavFile } from "./bytes.js";

const QUIET = -60;

async function build(ui) {
  const clips = await loadClips(ui.model);
  if (ui.gone) return;
  const mixer = new Mixer(ui, clips);
  ui.mixer = mixer;
  mixer.lay();
}

class Mixer {
  constructor(ui, clips) {
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
    this.rows = this.stems.map((stem, i) => this.row(stem, i));
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

  row(stem, i) {
    const title = stem.name;
    const button = (text, what, fn) =>
      h("button", { type: "button", title: `${what} ${title}`, "aria-label": `${what} ${title}`, onclick: fn }, text);
    const mute = button("M", "Mute", () => this.flip("mute", title));
    const solo = button("S", "Solo", () => this.flip("solo", title));
    const save = button("↓", "Download", () => this.saveStem(i));
    const gain = h("input", {
      type: "range", min: QUIET, max: 12, step: 1, "aria-label": `Gain of ${title} in dB`,
      oninput: () => this.ui.set({ gain_db: { ...this.ui.get("gain_db"), [title]: Number(gain.value) } }),
    });
    const db = h("span", { class: "stage-db" });
    let pick = null;
    if (stem.versions.length > 1) {
      pick = h("select", {
        "aria-label": `Version of ${title}`, title: "A/B: the place stays",
        onchange: () => this.pickVersion(stem, Number(pick.value)),
      }, ...stem.versions.map((v, n) => h("option", { value: n }, v.name)));
    }
    const swatch = h("span", { class: "stage-swatch", style: `background:${stem.colour || "currentColor"}` });
    const wave = h("canvas", {
      class: "stage-wave", role: "img", "aria-label": `Waveform of ${title}`,
      onclick: (event) => { this.choose(i); this.go(this.timeAt(event, wave)); },
    });
    const node = h("div", { class: "stage-row", role: "group", "aria-label": title, onfocusin: () => this.choose(i) },
      h("div", { class: "stage-side" },
        h("div", {}, swatch, h("span", { class: "stage-name", title }, title), mute, solo, save),
        h("div", {}, gain, db),
        pick && h("div", {}, pick)),
      wave);
    return { node, mute, solo, gain, db, pick, wave };
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

  // --- the loop ------------------------------------------------------------------------------

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

function loudest(stem) {
  let peak = 0;
  if (!stem.colour) return 0; // the click does not set the scale
  for (const { clip } of stem.versions)
    for (const value of clip.channels[0]) if (Math.abs(value) > peak) peak = Math.abs(value);
  return peak;
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
      ["d", "download it", act((m) => m.saveStem(m.chosen))],
    ],
    build: async (ui) => {
      await build(ui);
      mixer = ui.mixer;
    },
  });
}

export default { render };
