// The panel: 1 what to play along with, 2 what to ask for, 3 listen and keep. Python holds the song
// and generates; here are the microphone, the files and the sound.
import { frame, h, download } from "./frame.js";
import { byteLength, toBytes, toFloats } from "./bytes.js";
import { inputSection } from "./accompanist_input.js";
import { formSection } from "./accompanist_form.js";
import { Desk } from "./desk.js";

const PATIENCE_MS = 20000;

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
