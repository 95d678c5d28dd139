import { h } from "./frame.js";

// dB; the lowest place of a fader
export const QUIET = -60;

/** One stem: name, mute, solo, download, fader, versions, wave. What they do is mixer.js's. */
export function stemRow(mixer, stem, i) {
  const title = stem.name;
  const button = (text, what, fn) =>
    h("button", { type: "button", title: `${what} ${title}`, "aria-label": `${what} ${title}`, onclick: fn }, text);
  const mute = button("M", "Mute", () => mixer.flip("mute", title));
  const solo = button("S", "Solo", () => mixer.flip("solo", title));
  const save = button("↓", "Download", () => mixer.saveStem(i));
  const gain = h("input", {
    type: "range", min: QUIET, max: 12, step: 1, "aria-label": `Gain of ${title} in dB`,
    oninput: () => mixer.ui.set({ gain_db: { ...mixer.ui.get("gain_db"), [title]: Number(gain.value) } }),
  });
  const db = h("span", { class: "stage-db" });
  let pick = null;
  if (stem.versions.length > 1) {
    pick = h("select", {
      "aria-label": `Version of ${title}`, title: "A/B: the place stays",
      onchange: () => mixer.pickVersion(stem, Number(pick.value)),
    }, ...stem.versions.map((v, n) => h("option", { value: n }, v.name)));
  }
  const swatch = h("span", { class: "stage-swatch", style: `background:${stem.colour || "currentColor"}` });
  const wave = h("canvas", {
    class: "stage-wave", role: "img", "aria-label": `Waveform of ${title}`,
    onclick: (event) => { mixer.choose(i); mixer.go(mixer.timeAt(event, wave)); },
  });
  const node = h("div", { class: "stage-row", role: "group", "aria-label": title, onfocusin: () => mixer.choose(i) },
    h("div", { class: "stage-side" },
      h("div", {}, swatch, h("span", { class: "stage-name", title }, title), mute, solo, save),
      h("div", {}, gain, db),
      pick && h("div", {}, pick)),
    wave);
  return { node, mute, solo, gain, db, pick, wave };
}
