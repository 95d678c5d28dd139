// What every widget has: a named group, a line on what to listen for, a status line, help on its
// keys, and an end. Words of a user become text nodes, never HTML.

/**
 * An element: h("button", { class: "a", onclick: f, "aria-pressed": "false" }, "text", child). What a
 * listener throws, at once or later, becomes the widget's sentence.
 */
export function h(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "rect", "circle", "polyline", "text", "g", "title"].includes(tag);
  const node = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), async (event) => {
      try {
        await value(event);
      } catch (error) {
        node.dispatchEvent(new CustomEvent("stage-fault", { bubbles: true, detail: error }));
      }
    });
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Offer bytes as a file. */
export function download(bytes, name, type = "audio/wav") {
  const url = URL.createObjectURL(new Blob([bytes], { type }));
  const safe = String(name).replace(/[^\p{L}\p{N}._ -]+/gu, "_").slice(0, 80) || "audio";
  const link = h("a", { href: url, download: safe });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/**
 * Show a widget and return its clean-up function.
 *
 * keys: [["Space", "play or pause", (event) => ...], ...]; the name is that of event.key ("Space",
 * "ArrowLeft", "Shift+ArrowLeft", "m"). A key pressed in a field, or Space on a button, stays theirs.
 * build(ui): fills ui.body; may be async; what it throws becomes the widget's sentence.
 */
export function frame({ model, el }, { keys = [], build }) {
  const ends = [];
  let gone = false;
  const label = model.get("label");
  const body = h("div", { class: "stage-body" });
  const status = h("p", { class: "stage-status", role: "status", "aria-live": "polite" });
  const listen = h("p", { class: "stage-listen" });
  const root = h(
    "div",
    { class: "stage-widget", role: "group", "aria-label": label, tabindex: "0",
      "data-lm-suppress-shortcuts": "true", "data-stage-place": model.get("_place") },
    h("p", { class: "stage-title" }, label), body, listen, status,
  );
  if (keys.length) root.append(help(keys));

  const ui = {
    root, body, model, h,
    /** A sentence for everyone; "" clears it. */
    say(text, bad = false) {
      status.textContent = text;
      status.classList.toggle("stage-bad", Boolean(text) && bad);
    },
    get: (name) => model.get(name),
    /** Change traits in the kernel too. */
    set(values) {
      for (const [name, value] of Object.entries(values)) model.set(name, value);
      model.save_changes();
    },
    /** Call fn(value) now and whenever the trait changes. */
    watch(name, fn) {
      const heard = () => gone || fn(model.get(name));
      ui.on(`change:${name}`, heard);
      heard();
    },
    on(event, fn) {
      model.on(event, fn);
      ui.end(() => model.off(event, fn));
    },
    /** Messages of the kernel: widget.send({"kind": kind, ...}, buffers). */
    hear(kind, fn) {
      ui.on("msg:custom", (content, buffers) => content?.kind === kind && guard(() => fn(content, buffers)));
    },
    /** Python's on_<kind>(content) is called. */
    send: (kind, values = {}, buffers) => model.send({ ...values, kind }, undefined, buffers),
    /** Call fn() whenever the page turns light or dark: canvases have to be drawn again. */
    theme(fn) {
      const seen = new MutationObserver(() => gone || fn());
      seen.observe(document.body, {
        attributes: true,
        attributeFilter: ["class", "data-jp-theme-name", "data-vscode-theme-id", "style"],
      });
      ui.end(() => seen.disconnect());
    },
    /** Called once when the widget goes away. */
    end: (fn) => ends.push(fn),
    get gone() {
      return gone;
    },
  };

  const finish = (text) => {
    if (gone) return;
    gone = true;
    for (const end of ends.splice(0).reverse()) {
      try {
        end();
      } catch (error) {
        console.warn("stage_widgets:", error);
      }
    }
    if (text) root.replaceChildren(h("p", { class: "stage-status" }, text));
  };

  // JupyterLab looks for this mark from the focused element up, and its own ":focus" keys match there.
  root.addEventListener("focusin", ({ target }) => target.setAttribute("data-lm-suppress-shortcuts", "true"));
  // A key that a field or a button uses itself ends here: JupyterLab would take Enter away from it.
  root.addEventListener("keydown", (event) => {
    const control = event.target.closest("button,select,input,textarea,summary,a");
    const name = keyName(event);
    if (control?.matches(FIELD) || (control && owns(control, name))) {
      if (!event.ctrlKey && !event.metaKey && name !== "Shift+Enter") event.stopPropagation();
      return;
    }
    const found = keys.find(([key, , fn]) => fn && key.split(" or ").includes(name));
    if (!found) return;
    event.preventDefault();
    event.stopPropagation();
    guard(() => found[2](event));
  });
  const fault = (error) => ui.say(error.message || String(error), true);
  const guard = (fn) => {
    try {
      const result = fn();
      result?.catch?.(fault);
      return result;
    } catch (error) {
      fault(error);
    }
  };
  ui.guard = guard;
  root.addEventListener("stage-fault", ({ detail }) => fault(detail));

  ui.watch("listen_for", (text) => {
    listen.replaceChildren(...(text ? [h("em", {}, "Listen for: "), text] : []));
  });
  ui.watch("message", (text) => ui.say(text, true));
  ui.hear("close", () => finish(`${label}: closed.`));
  ui.on("comm_live_update", () =>
    ui.say("Python was restarted and no longer answers here. Run the cell again.", true));
  el.append(root);
  Promise.resolve()
    .then(() => build(ui))
    .then(() => root.setAttribute("data-ready", "true"))
    .catch(fault);
  return () => finish();
}

function keyName(event) {
  const key = event.key === " " ? "Space" : event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey || event.altKey) return "";
  return event.shiftKey && key.length > 1 ? `Shift+${key}` : key;
}

const FIELD = "input[type=text],input[type=number],input[type=search],textarea";

// What a focused control does itself with a key.
function owns(control, name) {
  const plain = name.replace("Shift+", "");
  if (["Space", "Enter"].includes(plain)) return true;
  const moves = control.matches("input[type=range],input[type=radio],select");
  return moves && /^(Arrow|Home|End|Page)/.test(plain);
}

function help(keys) {
  const rows = keys.map(([key, what]) => h("li", {}, h("kbd", {}, key), ` ${what}`));
  return h("details", { class: "stage-help" }, h("summary", {}, "Keys"), h("ul", {}, ...rows));
}
