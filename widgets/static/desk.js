// The song on one clock: context, kept stems and the take that is tried out, each with its wave.
import { h } from "./frame.js";
import { Engine } from "./engine.js";
import { colourOf } from "./palette.js";
import { clock, drawGrid, drawWave } from "./wave.js";

const CONTEXT_COLOUR = "#56B4E9";

/** Who is heard: keys of the song -> 0 or 1. */
export function audible({ context, takes, kept }, { muted, tried, alone }) {
  const levels = new Map();
  const trying = takes.some(({ id }) => id === tried);
  if (context) levels.set(context.key, muted.has(context.key) || (context.click && kept.length) ? 0 : 1);
  for (const { id } of takes) {
    const on = kept.includes(id) ? !muted.has(id) : id === tried;
    levels.set(id, on ? 1 : 0);
  }
  if (alone && trying) for (const key of levels.keys()) levels.set(key, key === tried ? 1 : 0);
  return levels;
}

/** How far to turn down, so that the sum of what is heard does not clip. */
export function headroom(clips) {
  const length = Math.max(0, ...clips.map(({ length }) => length));
  let peak = 0;
  for (let i = 0; i < length; i++) {
    let sum = 0;
    for (const { channels } of clips) sum += channels[0][i] || 0;
    if (Math.abs(sum) > peak) peak = Math.abs(sum);
  }
  return peak > 1 ? 0.98 / peak : 1;
}

export class Desk {
  /** actions: { take(action, id), want(key) }; duration in seconds. */
  constructor(ui, duration, actions) {
    Object.assign(this, { ui, duration, actions, clips: new Map(), engine: null, timer: 0 });
    this.song = { context: null, takes: [], kept: [] };
    this.choice = { muted: new Set(), tried: null, alone: false };
    this.play = h("button", { type: "button", onclick: () => this.toggle() }, "Play");
    this.place = h("input", { type: "range", min: "0", max: String(duration), step: "0.01", value: "0",
      class: "stage-place", "aria-label": "Place in the song",
      oninput: () => { this.engine?.seek(Number(this.place.value)); this.paint(); } });
    this.time = h("span", { class: "stage-time" });
    const loop = h("input", { type: "checkbox", onchange: () => { this.looping = loop.checked; this.setLoop(); } });
    const alone = h("input", { type: "checkbox", onchange: () => { this.choice.alone = alone.checked; this.level(); } });
    this.rows = h("div", { class: "stage-lanes" });
    this.node = h("div", {},
      h("div", { class: "stage-bar" }, this.play, this.place, this.time,
        h("label", {}, loop, "loop"), h("label", {}, alone, "the take alone")),
      this.rows);
    const resized = new ResizeObserver(() => this.draw());
    resized.observe(this.rows);
    ui.end(() => {
      resized.disconnect();
      cancelAnimationFrame(this.timer);
      this.engine?.close();
    });
    this.paint();
  }

  /** Follow Python's song. */
  follow(song) {
    const newest = Math.max(0, ...song.takes.map(({ id }) => id));
    const before = Math.max(0, ...this.song.takes.map(({ id }) => id));
    if (newest > before) this.choice.tried = newest;
    if (!song.takes.some(({ id }) => id === this.choice.tried)) this.choice.tried = null;
    if (song.context?.key !== this.song.context?.key) this.engine?.seek(0);
    this.song = song;
    const keys = [...(song.context ? [song.context.key] : []), ...song.takes.map(({ id }) => id)];
    for (const key of this.clips.keys()) if (!keys.includes(key)) this.clips.delete(key);
    // A take that is neither new nor kept is fetched when it is tried.
    for (const key of keys)
      if (typeof key === "string" || song.kept.includes(key) || key === this.choice.tried) this.want(key);
    this.list();
    this.wire();
    this.paint();
  }

  want(key) {
    if (!this.clips.has(key)) this.actions.want(key);
  }

  /** A clip has come. */
  add(key, samples, rate) {
    this.clips.set(key, { channels: [samples], length: samples.length, rate });
    this.draw();
    this.wire();
  }

  // --- sound

  wire() {
    const keys = [...audible(this.song, this.choice).keys()].filter((key) => this.clips.has(key));
    this.keys = keys;
    const clips = keys.map((key) => this.clips.get(key));
    const rate = clips[0]?.rate;
    if (!rate) return this.engine?.pause();
    this.engine ||= new Engine({ tracks: [], duration: this.duration, rate, onEnd: () => this.paint() });
    this.engine.setTracks(clips.map((clip, i) => ({ name: String(keys[i]), level: 0, versions: [{ name: "", clip }] })));
    this.setLoop();
    this.level();
  }

  level() {
    const levels = audible(this.song, this.choice);
    this.engine?.setMaster(headroom(this.keys.filter((key) => levels.get(key)).map((key) => this.clips.get(key))));
    this.keys?.forEach((key, i) => this.engine?.setLevel(i, levels.get(key) || 0));
    for (const [key, lane] of this.lanes || []) lane.row.classList.toggle("stage-off", !levels.get(key));
  }

  setLoop() {
    if (this.engine && Boolean(this.engine.loop) !== Boolean(this.looping))
      this.engine.setLoop(this.looping ? [0, this.duration] : null);
  }

  toggle() {
    if (!this.keys?.length) throw new Error("There is nothing to hear yet: give it a context, or generate a stem.");
    if (this.engine.playing) this.engine.pause();
    else this.engine.play();
    this.paint();
  }

  /** Hear a take beside the song; again: no longer. */
  tryOut(id) {
    this.choice.tried = this.choice.tried === id ? null : id;
    if (this.choice.tried) this.want(id);
    this.list();
    this.level();
  }

  /** The next or the last take that is not kept. */
  step(by) {
    const free = this.song.takes.map(({ id }) => id).filter((id) => !this.song.kept.includes(id));
    if (!free.length) return;
    const at = free.indexOf(this.choice.tried);
    const next = free[at < 0 ? free.length - 1 : Math.max(0, Math.min(free.length - 1, at + by))];
    if (next !== this.choice.tried) this.tryOut(next);
  }

  paint() {
    cancelAnimationFrame(this.timer);
    const now = this.engine ? this.engine.position() : 0;
    this.place.value = String(now);
    this.rows.style.setProperty("--at", `${(100 * now) / this.duration}%`);
    this.time.textContent = `${clock(now)} of ${clock(this.duration)}`;
    this.play.textContent = this.engine?.playing ? "Pause" : "Play";
    if (this.engine?.playing) this.timer = requestAnimationFrame(() => this.paint());
  }

  // --- what is seen

  list() {
    const focused = document.activeElement?.dataset?.key;
    this.lanes = new Map();
    const { context, takes, kept } = this.song;
    const order = [...kept.map((id) => takes.find((take) => take.id === id)),
      ...takes.filter(({ id }) => !kept.includes(id)).reverse()];
    const rows = order.map((take) => this.row(take, kept.includes(take.id)));
    if (context) rows.unshift(this.contextRow(context, kept.length));
    const none = "Nothing yet. Give it music or a click above, and ask for a stem; without either it plays from words alone.";
    this.rows.replaceChildren(...(rows.length ? rows : [h("p", { class: "stage-soft" }, none)]));
    this.rows.querySelector(`[data-key="${CSS.escape(focused || "none")}"]`)?.focus();
    this.draw();
    this.level();
  }

  contextRow(context, kept) {
    const silent = context.click && kept ? "the stems have taken over" : `${context.seconds.toFixed(1)} s`;
    return this.lane(context.key, CONTEXT_COLOUR, context.name, silent,
      context.click && kept ? [] : [this.muteButton(context.key, context.name)]);
  }

  row(take, isKept) {
    const { id, stem, words, seed, cfg_coef } = take;
    const name = `${id} ${stem}`;
    const button = (action, text) => h("button", { type: "button", "data-key": `${action} ${id}`,
      "aria-label": `${text} take ${name}`, onclick: () => this.actions.take(action, id) }, text);
    const hear = h("button", { type: "button", "data-key": `hear ${id}`, "aria-pressed": String(this.choice.tried === id),
      "aria-label": `Hear take ${name}`, onclick: () => this.tryOut(id) }, "Hear");
    const buttons = isKept
      ? [this.muteButton(id, name), button("put_back", "Put back")]
      : [hear, button("keep", "Keep"), button("delete", "Delete")];
    const detail = `${words ? `${words}; ` : ""}guidance ${cfg_coef}, seed ${seed}${isKept ? "; kept" : ""}`;
    return this.lane(id, colourOf(stem, id), name, detail, buttons);
  }

  muteButton(key, name) {
    const { muted } = this.choice;
    return h("button", { type: "button", "data-key": `mute ${key}`, "aria-pressed": String(muted.has(key)),
      "aria-label": `Mute ${name}`,
      onclick: () => { muted.has(key) ? muted.delete(key) : muted.add(key); this.list(); } }, "Mute");
  }

  lane(key, colour, name, detail, buttons) {
    const canvas = h("canvas", { role: "img", "aria-label": `Waveform of ${name}` });
    const row = h("div", { class: "stage-lane", role: "group", "aria-label": name },
      h("div", { class: "stage-name", title: name }, h("strong", {}, name), h("small", {}, detail)),
      h("div", { class: "stage-wave", onclick: (event) => this.seek(event) }, canvas),
      h("div", { class: "stage-bar" }, ...buttons));
    this.lanes.set(key, { row, canvas, colour });
    return row;
  }

  seek(event) {
    const box = event.currentTarget.getBoundingClientRect();
    this.engine?.seek(((event.clientX - box.left) / box.width) * this.duration);
    this.paint();
  }

  draw() {
    const { beats, downbeats } = this.song.context || {};
    const view = [0, this.duration];
    for (const [key, { canvas, colour }] of this.lanes || []) {
      const clip = this.clips.get(key);
      if (!clip || !canvas.clientWidth) continue;
      const drawn = drawWave(canvas, clip, { colour, view });
      if (beats?.length) drawGrid(drawn, { beats, downbeats, view, colour: getComputedStyle(canvas).color });
    }
  }
}
