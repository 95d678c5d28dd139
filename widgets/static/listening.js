// The page of a listening test. All clips run along on one clock and one of them is heard, so that
// switching keeps the place. Nothing here knows what a clip is: they are "1", "2", ... of a page.
import { frame, h } from "./frame.js";
import { loadClips } from "./clips.js";
import { Engine } from "./engine.js";
import { clock } from "./wave.js";

const WORDS = ["bad", "poor", "fair", "good", "excellent"];
const PATIENCE_MS = 15000;

/** The clips of a page in the order of its buttons: [{ key, label, shortcut }]. */
export function buttonsOf(page) {
  const pair = page.form === "pairs";
  const list = [];
  if (page.reference) list.push({ key: "reference", label: "Reference", shortcut: "r" });
  for (let i = 1; i <= page.count; i++)
    list.push({ key: String(i), label: pair ? ["Hear left", "Hear right"][i - 1] : `Clip ${i}`, shortcut: String(i) });
  if (page.context) list.push({ key: "context", label: "Music alone", shortcut: "m" });
  return list;
}

/** What is still to be done on a page, as a sentence; "" when it can be sent. */
export function missing(page, heard, answer) {
  const clips = buttonsOf(page).filter(({ key }) => /^\d+$/.test(key));
  const unheard = clips.filter(({ key }) => !heard.has(key)).map(({ label }) => label.replace("Hear ", "").toLowerCase());
  if (unheard.length) return `Listen to ${unheard.join(", ")} first.`;
  if (page.form === "pairs") return answer.choice ? "" : "Choose left or right.";
  const unset = clips.filter((_, i) => answer.ratings[i] === undefined).map(({ label }) => label.toLowerCase());
  return unset.length ? `Move the slider of ${unset.join(", ")}.` : "";
}

/** 57 -> "57, fair" */
export function rating(value) {
  return `${value}, ${WORDS[Math.min(4, Math.floor(value / 20))]}`;
}

async function build(ui, actions) {
  ui.root.classList.add("stage-listening"); // its styles are for it alone
  const head = h("div", { class: "stage-bar" });
  const bar = h("progress", { max: "1", value: "0", "aria-label": "Pages answered" });
  const count = h("span", {});
  head.append(count, bar);
  const place = h("div", {});
  ui.body.append(head, place);
  const state = { engine: null, timer: 0, page: null };
  ui.end(() => {
    cancelAnimationFrame(state.timer);
    clearTimeout(state.patience);
    state.engine?.close();
  });
  const show = async (page) => {
    clearTimeout(state.patience);
    cancelAnimationFrame(state.timer);
    state.page = page;
    const done = page.done ? page.of : page.number - 1;
    bar.max = page.of;
    bar.value = done;
    count.textContent = page.done ? (page.of > 1 ? `All ${page.of} pages are answered.` : "The page is answered.") : `Page ${page.number} of ${page.of}`;
    if (page.done) {
      state.engine?.close();
      state.engine = null;
      for (const name of Object.keys(actions)) delete actions[name];
      ui.say("");
      place.replaceChildren(h("p", {}, `Thank you. The answers are in ${page.file}.`));
      return;
    }
    const clips = await loadClips(ui.model);
    if (ui.gone || page !== state.page) return;
    ui.say(ui.get("note") || "");
    sheet(ui, actions, place, state, page, clips);
  };
  ui.on("change:_page", () => show(ui.get("_page")).catch((error) => ui.say(error.message, true)));
  // A sentence of Python: the page stands as it was.
  ui.on("change:message", () => ui.get("message") && state.free?.());
  await show(ui.get("_page"));
}

function sheet(ui, actions, place, state, page, clips) {
  const buttons = buttonsOf(page);
  const tracks = buttons.map(({ key }) => ({
    name: key, level: 0, versions: [{ name: key, clip: clips.get(`${page.trial}/${key}`) }],
  }));
  const first = tracks[0].versions[0].clip;
  const duration = first.length / first.rate;
  if (state.engine && state.engine.rate !== first.rate) {
    state.engine.close();
    state.engine = null;
  }
  const engine = state.engine || new Engine({ tracks: [], duration, rate: first.rate });
  state.engine = engine;
  engine.onEnd = () => paint();
  engine.pause();
  engine.setTracks(tracks, duration);
  engine.seek(0);
  engine.setLoop([0, duration]);

  const opened = performance.now();
  const heard = new Set();
  const answer = { choice: null, ratings: new Array(page.count) };
  let chosen = -1, sent = false;

  // --- sound
  const play = h("button", { type: "button", onclick: () => toggle() }, "Play");
  const at = h("input", { type: "range", min: "0", max: String(duration), step: "0.01", value: "0",
    "aria-label": "Place in the clip", class: "stage-place", oninput: () => engine.seek(Number(at.value)) });
  const time = h("span", { class: "stage-time" });
  const loop = h("input", { type: "checkbox", checked: true,
    onchange: () => engine.setLoop(loop.checked ? [0, duration] : null) });

  function choose(i) {
    if (i < 0 || i >= buttons.length) return;
    chosen = i;
    tracks.forEach((_, t) => engine.setLevel(t, t === i ? 1 : 0));
    hear.forEach((button, t) => button.setAttribute("aria-pressed", String(t === i)));
    sliders.get(buttons[i].key)?.focus();
    if (!engine.playing) engine.play();
    paint();
  }
  function toggle() {
    if (engine.playing) engine.pause();
    else if (chosen < 0) return choose(0);
    else engine.play();
    paint();
  }
  function paint() {
    cancelAnimationFrame(state.timer);
    const now = engine.position();
    if (document.activeElement !== at || engine.playing) at.value = String(now);
    time.textContent = `${clock(now)} of ${clock(duration)}`;
    play.textContent = engine.playing ? "Pause" : "Play";
    if (!engine.playing) return;
    heard.add(buttons[chosen].key);
    state.timer = requestAnimationFrame(paint);
  }
  const hear = buttons.map(({ label, shortcut }, i) =>
    h("button", { type: "button", "aria-pressed": "false", "aria-keyshortcuts": shortcut, class: "stage-hear",
      onclick: () => choose(i) }, label));

  // --- answers
  const sliders = new Map();
  let prefer = () => {};
  const rows = h("div", { class: "stage-rows" });
  if (page.form === "pairs") {
    rows.append(h("div", { class: "stage-bar", role: "group", "aria-label": "Hear" }, ...hear));
    const sides = ["left", "right"].map((side, i) =>
      h("button", { type: "button", "aria-pressed": "false", class: "stage-answer",
        onclick: () => prefer(i) }, `${["Left", "Right"][i]} is better`));
    rows.append(h("div", { class: "stage-bar", role: "group", "aria-label": "Your answer" }, ...sides));
    prefer = (i) => {
      answer.choice = ["left", "right"][i];
      sides.forEach((side, s) => side.setAttribute("aria-pressed", String(s === i)));
      ui.say("");
    };
  } else {
    const scale = h("div", { class: "stage-scale", "aria-hidden": "true" }, ...WORDS.map((word) => h("span", {}, word)));
    rows.append(h("div", { class: "stage-row" }, h("span", {}), scale, h("span", {})));
    buttons.forEach(({ key, label }, i) => {
      if (!/^\d+$/.test(key)) {
        rows.append(h("div", { class: "stage-row" }, hear[i], h("span", {}), h("span", {})));
        return;
      }
      const shown = h("output", {}, "not yet");
      const set = () => {
        answer.ratings[Number(key) - 1] = Number(slider.value);
        shown.textContent = rating(Number(slider.value));
        slider.setAttribute("aria-valuetext", rating(Number(slider.value)));
        slider.classList.remove("stage-unset");
      };
      const slider = h("input", { type: "range", min: "0", max: "100", step: "1", value: "50", class: "stage-unset",
        "aria-label": `${label}: 0 bad, 100 excellent`, "aria-valuetext": "not yet", oninput: set, onchange: set,
        onkeydown: (event) => { // a slider has no use for these two
          const act = { " ": toggle, Enter: send }[event.key];
          if (!act) return;
          event.preventDefault();
          event.stopPropagation();
          ui.guard(act);
        } });
      sliders.set(key, slider);
      rows.append(h("div", { class: "stage-row" }, hear[i], slider, shown));
    });
  }
  const next = h("button", { type: "button", class: "stage-next", onclick: () => send() },
    page.number === page.of ? "Finish" : "Next page");
  state.free = () => {
    sent = false;
    next.disabled = false;
    clearTimeout(state.patience);
  };
  function send() {
    if (sent) return;
    const lacks = missing(page, heard, answer);
    if (lacks) return ui.say(lacks, true);
    ui.root.focus({ preventScroll: true }); // before what has it goes: the keys go on working
    sent = next.disabled = true;
    engine.pause();
    paint();
    ui.say("Saving ...");
    state.patience = setTimeout(() =>
      ui.say("Python has not saved this answer yet: a cell may still be running. It is not lost.", true), PATIENCE_MS);
    ui.send("answer", {
      trial: page.trial,
      answer: page.form === "pairs" ? answer.choice : [...answer.ratings],
      seconds: (performance.now() - opened) / 1000,
    });
  }
  Object.assign(actions, { toggle, next: send, prefer, loop: () => loop.click(),
    hear: (event) => choose(buttons.findIndex(({ shortcut }) => shortcut === event.key.toLowerCase())) });
  place.replaceChildren(
    h("p", { class: "stage-question" }, page.question),
    h("div", { class: "stage-bar" }, play, at, time, h("label", {}, loop, "loop")),
    rows,
    h("div", { class: "stage-bar stage-end" }, next),
  );
  paint();
}

const DIGITS = "1 or 2 or 3 or 4 or 5 or 6 or 7 or 8 or 9";

export default {
  render: (context) => {
    const page = context.model.get("_page");
    const pairs = page.form === "pairs";
    const actions = {}; // of the page that is shown
    const keys = [
      ["Space", "play or pause", () => actions.toggle?.()],
      [pairs ? "1 or 2" : DIGITS, "hear a clip", (event) => actions.hear?.(event)],
      !pairs && ["r", "hear the reference", (event) => actions.hear?.(event)],
      page.context !== false && ["m", "hear the music alone", (event) => actions.hear?.(event)],
      ["l", "loop on or off", () => actions.loop?.()],
      pairs && ["ArrowLeft", "left is better", () => actions.prefer?.(0)],
      pairs && ["ArrowRight", "right is better", () => actions.prefer?.(1)],
      ["Enter", "next page", () => actions.next?.()],
    ];
    return frame(context, { keys: keys.filter(Boolean), build: (ui) => build(ui, actions) });
  },
};
