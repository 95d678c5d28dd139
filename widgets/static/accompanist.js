// The panel: 1 what to play along with, 2 what to ask for, 3 listen and keep. Python holds the song
// and generates; here are the microphone, the files and the sound.
import { frame, h, download } from "./frame.js";
import { byteLength, toBytes, toFloats } from "./bytes.js";
import { readFile, record, toInt16 } from "./audio_in.js";
import { Desk } from "./desk.js";
import { drawWave } from "./wave.js";

const PATIENCE_MS = 20000;

/** How far a job is, as a sentence. */
export function progressText({ state, done, total, text }, elapsed) {
  if (state === "idle" || state === "cancelling") return text;
  if (!total) return `${text}: beginning`;
  const left = done ? (elapsed * (total - done)) / done : 0;
  const soon = done > 5 && done < total ? `, about ${Math.max(1, Math.round(left))} s left` : "";
  return `${text}: ${Math.round((100 * done) / total)} %${soon}`;
}

/** Text of a number field as a number, or a sentence. */
export function numberOf(text, low, high, name, whole = false) {
  const value = Number(String(text).trim().replace(",", "."));
  const fine = String(text).trim() !== "" && value >= low && value <= high && (!whole || Number.isInteger(value));
  if (!fine) throw new Error(`${name} is "${text}"; expected a ${whole ? "whole " : ""}number from ${low} to ${high}.`);
  return value;
}

function build(ui, actions) {
  ui.root.classList.add("stage-accompanist"); // its styles are for it alone
  const options = ui.get("_options");
  const asked = new Set();
  const desk = new Desk(ui, options.duration, {
    take: (action, id) => tell("take", { action, id }),
    want: (key) => {
      if (asked.has(key)) return;
      asked.add(key);
      ui.send("clip_please", { key });
    },
  });
  let patience = 0;
  ui.end(() => clearTimeout(patience));
  function tell(kind, values, buffers) {
    clearTimeout(patience);
    patience = setTimeout(() =>
      ui.say("Python has not answered yet: a cell may still be running.", true), PATIENCE_MS);
    ui.send(kind, values, buffers);
  }

  const input = inputSection(ui, options, tell);
  const form = formSection(ui, options, tell);
  const save = h("button", { type: "button", onclick: () => tell("export") }, "Save as zip");
  const over = h("button", { type: "button", onclick: () => startOver() }, "Start over");
  ui.body.append(
    step("1  Play along with", input.node),
    step("2  Ask for a stem", form.node),
    step("3  Listen and keep", desk.node, h("div", { class: "stage-bar" }, save, over)),
  );

  // Takes that are kept are not thrown away by one click.
  let sure = false;
  function startOver() {
    if (ui.get("_song").kept.length && !sure) {
      sure = true;
      over.textContent = "Really start over?";
      setTimeout(() => { sure = false; over.textContent = "Start over"; }, 4000);
      return;
    }
    sure = false;
    over.textContent = "Start over";
    input.forget();
    tell("start_over");
  }

  ui.watch("_song", (song) => {
    clearTimeout(patience);
    desk.follow(song);
    input.follow(song);
  });
  ui.watch("_job", (job) => {
    clearTimeout(patience);
    form.follow(job);
    const idle = job.state === "idle";
    for (const button of [save, over]) button.disabled = !idle;
    if (idle && job.text && !ui.get("message")) ui.say(job.text);
  });
  ui.on("change:message", () => clearTimeout(patience));
  ui.hear("clip", ({ key, rate }, buffers) => {
    asked.delete(key);
    const bytes = toBytes(buffers[0]);
    if (byteLength(bytes)) desk.add(key, toFloats(bytes, 0, bytes.byteLength >> 1), rate);
  });
  ui.hear("decoded", ({ name, rate }, buffers) => {
    clearTimeout(patience);
    const bytes = toBytes(buffers[0]);
    ui.guard(() => input.use(name, { samples: toFloats(bytes, 0, bytes.byteLength >> 1), rate }));
  });
  ui.hear("zip", ({ name }, buffers) => {
    download(toBytes(buffers[0]), name, "application/zip");
    ui.say(`${name} is ready.`);
  });
  Object.assign(actions, {
    play: () => desk.toggle(),
    generate: form.generate,
    cancel: form.cancel,
    keep: () => desk.choice.tried && tell("take", { action: "keep", id: desk.choice.tried }),
    step: (by) => desk.step(by),
  });
}

function step(title, ...content) {
  return h("section", { class: "stage-step", "aria-label": title }, h("p", { class: "stage-head" }, title), ...content);
}

// --- 1: a file, the microphone, a click -----------------------------------------------------------

function inputSection(ui, options, tell) {
  const picker = h("input", { type: "file", accept: "audio/*,video/*,.flac,.ogg,.aif,.aiff", class: "stage-hidden",
    tabindex: "-1", "aria-label": "Sound file", onchange: () => { take(picker.files[0]); picker.value = ""; } });
  const choose = h("button", { type: "button", onclick: () => picker.click() }, "Choose a file");
  const mic = h("button", { type: "button", onclick: () => recording ? recording.stop() : start() }, "Record");
  const bpm = h("input", { type: "number", value: "120", min: "10", max: "1000", step: "any", class: "stage-short" });
  const bar = h("input", { type: "number", value: "4", min: "1", max: "16", step: "1", class: "stage-short" });
  const click = h("button", { type: "button", onclick: () => ui.guard(() => {
    if (!free()) return;
    source = null;
    show();
    tell("click", { bpm: numberOf(bpm.value, 10, 1000, "The tempo"),
      beats_per_bar: numberOf(bar.value, 1, 16, "Beats a bar", true) });
  }) }, "Use a click");
  const canvas = h("canvas", { role: "img", "aria-label": "Waveform of the file" });
  const shade = h("div", { class: "stage-window" });
  const from = h("input", { type: "range", min: "0", step: "0.1", "aria-label": "Where the part that is used begins, in seconds",
    oninput: () => show(), onchange: () => ui.guard(() => send()) });
  const words = h("span", { class: "stage-soft" });
  const part = h("div", { class: "stage-part" },
    h("div", { class: "stage-wave" }, canvas, shade), h("div", { class: "stage-bar" }, h("label", {}, "from", from), words));
  const node = h("div", {},
    h("div", { class: "stage-bar" }, choose, picker, mic, h("span", { class: "stage-soft" }, "or drop a file here"),
      h("span", { class: "stage-click" }, h("label", {}, "bpm", bpm), h("label", {}, "beats a bar", bar), click)),
    part);
  part.hidden = true;

  let source = null; // { name, samples, rate }: all of what was chosen
  let recording = null, reading = false;

  function free() {
    const kept = ui.get("_song").kept.length;
    if (kept) ui.say(`What is kept (${kept}) belongs to the context that it was played to. Start over first, or put it back.`, true);
    return !kept;
  }

  async function take(file) {
    if (!file || reading || !free()) return;
    reading = true;
    ui.say(`Reading ${file.name} ...`);
    try {
      const read = await readFile(file, options.rate);
      if (ui.gone) return;
      if (read.bytes) tell("file", { name: file.name }, [read.bytes]);
      else use(file.name, read);
    } catch (error) {
      ui.say(error.message, true);
    } finally {
      reading = false;
    }
  }

  async function start() {
    if (!free()) return;
    mic.disabled = true; // until the browser has asked
    try {
      recording = await record((seconds) => { mic.textContent = `Stop (${Math.floor(seconds)} s)`; });
      mic.textContent = "Stop (0 s)";
      mic.disabled = false;
      mic.setAttribute("aria-pressed", "true");
      ui.say("Recording. The microphone hears you.");
      if (ui.gone) recording.stop();
      const blob = await recording.done;
      recording = null;
      if (!ui.gone) await take(new File([blob], "recording", { type: blob.type }));
    } catch (error) {
      ui.say(error.message, true);
    } finally {
      recording = null;
      mic.disabled = false;
      mic.textContent = "Record";
      mic.setAttribute("aria-pressed", "false");
    }
  }
  ui.end(() => recording?.stop());

  /** Take the beginning of it; the slider chooses another part. */
  function use(name, { samples, rate }) {
    if (!samples.length) throw new Error(`${name} holds no sound.`);
    source = { name, samples, rate };
    from.max = String(Math.max(0, samples.length / rate - options.duration).toFixed(1));
    from.value = "0";
    show();
    ui.say("");
    send();
  }

  function send() {
    const start = Math.round(Number(from.value) * source.rate);
    const end = start + Math.round(options.duration * source.rate);
    tell("context", { name: source.name, rate: source.rate }, [toInt16(source.samples.subarray(start, end)).buffer]);
  }

  function show() {
    const seconds = source ? source.samples.length / source.rate : 0;
    part.hidden = !source || seconds <= options.duration + 0.05;
    if (part.hidden) return;
    const start = Number(from.value);
    shade.style.left = `${(100 * start) / seconds}%`;
    shade.style.width = `${(100 * options.duration) / seconds}%`;
    words.textContent = `${start.toFixed(1)} to ${(start + options.duration).toFixed(1)} s of ${seconds.toFixed(1)} s`;
    canvas.setAttribute("aria-label", `Waveform of ${source.name}`);
    drawWave(canvas, { channels: [source.samples], rate: source.rate }, { colour: "#56B4E9", view: [0, seconds] });
  }
  const resized = new ResizeObserver(() => show());
  resized.observe(node);
  ui.end(() => resized.disconnect());

  // Anywhere in the widget; without this the browser would leave the page for the file.
  const over = (event) => {
    event.preventDefault();
    event.stopPropagation();
    ui.root.classList.toggle("stage-drop", event.type === "dragover");
    if (event.type === "drop") {
      const files = event.dataTransfer?.files || [];
      if (files.length > 1) ui.say(`${files.length} files were dropped. Drop one.`, true);
      else if (files.length) take(files[0]);
      else ui.say("What was dropped is no file.", true);
    }
  };
  for (const name of ["dragover", "dragleave", "drop"]) ui.root.addEventListener(name, over);
  return {
    node, use,
    follow: (song) => { // the part can be moved until something is kept
      from.disabled = Boolean(song.kept.length);
      if (song.context?.click) { source = null; show(); }
    },
    forget: () => { source = null; show(); },
  };
}

// --- 2: what to ask for -------------------------------------------------------------------------------

function formSection(ui, options, tell) {
  const last = ui.get("_form");
  const stem = h("select", {}, ...options.stems.map((name) => h("option", { value: name, selected: name === last.stem }, name)));
  const enter = ({ key }) => ui.guard(() => (key === "Enter" ? generate() : key === "Escape" && cancel()));
  const words = h("input", { type: "text", value: last.words, maxlength: String(options.max_words), class: "stage-words",
    placeholder: "bossa nova, slow", onkeydown: enter });
  const cfg = h("input", { type: "number", value: String(last.cfg_coef), min: "0", max: String(options.max_guidance), step: "0.5",
    class: "stage-short", onkeydown: enter, title: "How strictly it follows; 1 is freely, 3 is usual" });
  const seed = h("input", { type: "number", value: String(last.seed), min: "0", max: String(options.max_seed), step: "1",
    class: "stage-seed", onkeydown: enter, title: "Same seed and settings, same take" });
  const dice = h("button", { type: "button", onclick: () => { seed.value = String(Math.floor(Math.random() * 10000)); } }, "New seed");
  const go = h("button", { type: "button", class: "stage-go", onclick: () => ui.guard(generate) }, "Generate");
  const stop = h("button", { type: "button", disabled: true, onclick: () => cancel() }, "Cancel");
  const bar = h("progress", { max: "1", "aria-label": "Progress" });
  const text = h("span", { class: "stage-soft" });
  const node = h("div", {},
    h("div", { class: "stage-bar" }, h("label", {}, "stem", stem), h("label", { class: "stage-grow" }, "words", words),
      h("label", {}, "guidance", cfg), h("label", {}, "seed", seed), dice),
    h("div", { class: "stage-bar" }, go, stop, bar, text));
  bar.hidden = true;
  let began = 0, state = "idle";

  function generate() {
    if (state !== "idle") return ui.say("It is still at work. Wait, or cancel it.", true);
    ui.say("");
    if (document.activeElement === go) ui.root.focus({ preventScroll: true }); // it is disabled next
    tell("generate", { stem: stem.value, words: words.value,
      cfg_coef: numberOf(cfg.value, 0, options.max_guidance, "Guidance"),
      seed: numberOf(seed.value, 0, options.max_seed, "The seed", true) });
  }
  function cancel() {
    if (state === "generating") tell("cancel");
  }
  function follow(job) {
    if (job.state !== "idle" && state === "idle") began = performance.now();
    state = job.state;
    const idle = state === "idle";
    go.disabled = !idle;
    stop.disabled = state !== "generating";
    bar.hidden = idle;
    if (job.total) bar.value = job.done / job.total;
    else bar.removeAttribute("value");
    text.textContent = idle ? "" : progressText(job, (performance.now() - began) / 1000);
  }
  return { node, generate, cancel, follow };
}

export default {
  render: (context) => {
    const actions = {};
    const keys = [
      ["Space", "play or pause", () => actions.play()],
      ["g", "generate", () => actions.generate()],
      ["Escape", "cancel", () => actions.cancel()],
      ["ArrowUp", "hear a newer take", () => actions.step(1)],
      ["ArrowDown", "hear an older take", () => actions.step(-1)],
      ["k", "keep the take", () => actions.keep()],
    ];
    return frame(context, { keys, build: (ui) => build(ui, actions) });
  },
};
