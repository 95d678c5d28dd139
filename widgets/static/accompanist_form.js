// What to ask for: stem, words, guidance and seed; how far it is; generate and cancel.
import { h } from "./frame.js";

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

export function formSection(ui, options, tell) {
  const last = ui.get("_form");
  const stem = h("select", {}, ...options.stems.map((name) => h("option", { value: name, selected: name === last.stem }, name)));
  const enter = ({ key }) => (key === "Enter" ? generate() : key === "Escape" && cancel());
  const words = h("input", { type: "text", value: last.words, maxlength: String(options.max_words), class: "stage-words",
    placeholder: "bossa nova, slow", onkeydown: enter });
  const cfg = h("input", { type: "number", value: String(last.cfg_coef), min: "0", max: String(options.max_guidance), step: "0.5",
    class: "stage-short", onkeydown: enter, title: "How strictly it follows; 1 is freely, 3 is usual" });
  const seed = h("input", { type: "number", value: String(last.seed), min: "0", max: String(options.max_seed), step: "1",
    class: "stage-seed", onkeydown: enter, title: "Same seed and settings, same take" });
  const dice = h("button", { type: "button", onclick: () => { seed.value = String(Math.floor(Math.random() * 10000)); } }, "New seed");
  const go = h("button", { type: "button", class: "stage-go", onclick: () => generate() }, "Generate");
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
