// What to play along with: a file and the part of it, the microphone, or a click.
import { h } from "./frame.js";
import { readFile, record, toInt16 } from "./audio_in.js";
import { numberOf } from "./accompanist_form.js";
import { drawWave } from "./wave.js";

export function inputSection(ui, options, tell) {
  const picker = h("input", { type: "file", accept: "audio/*,video/*,.flac,.ogg,.aif,.aiff", class: "stage-hidden",
    tabindex: "-1", "aria-label": "Sound file", onchange: () => { take(picker.files[0]); picker.value = ""; } });
  const choose = h("button", { type: "button", onclick: () => picker.click() }, "Choose a file");
  const mic = h("button", { type: "button", onclick: () => recording ? recording.stop() : start() }, "Record");
  const bpm = h("input", { type: "number", value: "120", min: "10", max: "1000", step: "any", class: "stage-short" });
  const bar = h("input", { type: "number", value: "4", min: "1", max: "16", step: "1", class: "stage-short" });
  const click = h("button", { type: "button", onclick: () => {
    if (!free()) return;
    source = null;
    show();
    tell("click", { bpm: numberOf(bpm.value, 10, 1000, "The tempo"),
      beats_per_bar: numberOf(bar.value, 1, 16, "Beats a bar", true) });
  } }, "Use a click");
  const canvas = h("canvas", { role: "img", "aria-label": "Waveform of the file" });
  const shade = h("div", { class: "stage-window" });
  const from = h("input", { type: "range", min: "0", step: "0.1", "aria-label": "Where the part that is used begins, in seconds",
    oninput: () => show(), onchange: () => send() });
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
