// What mount.py runs in the page: a model with the messages of a front end, and one widget on it.
async ({ state, esm, css, how, id }) => {
  performance.mark("handed over");
  const decode = (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return { DataView: new DataView(bytes.buffer), Uint8Array: bytes, ArrayBuffer: bytes.buffer }[how];
  };
  const revive = (value) => (value && value.__bytes !== undefined ? decode(value.__bytes) : value);
  class Model {
    constructor(values) { this.values = values; this.dirty = {}; this.calls = []; this.out = []; }
    get(name) { return this.values[name]; }
    set(name, value) {
      if (this.values[name] === value) return;
      this.values[name] = value; this.dirty[name] = value; this.fire(`change:${name}`);
    }
    save_changes() {
      const changed = this.dirty; this.dirty = {};
      for (const [k, v] of Object.entries(changed)) if (v instanceof DataView) delete changed[k];
      if (Object.keys(changed).length) this.out.push({ state: JSON.parse(JSON.stringify(changed)) });
    }
    on(event, fn) { this.calls.push([event, fn]); }
    off(event, fn) { this.calls = this.calls.filter(([e, f]) => e !== event || f !== fn); }
    fire(event, ...args) { for (const [e, fn] of [...this.calls]) if (e === event) fn(...args); }
    send(content, _, buffers) {
      const coded = (buffers || []).map((b) => {
        const bytes = b instanceof ArrayBuffer
          ? new Uint8Array(b)
          : new Uint8Array(b.buffer, b.byteOffset, b.byteLength);
        return btoa(Array.from(bytes, (x) => String.fromCharCode(x)).join(""));
      });
      this.out.push({ content: JSON.parse(JSON.stringify(content)), buffers: coded });
    }
    update(values) {
      const news = Object.entries(values).map(([k, v]) => [k, revive(v)]);
      for (const [k, v] of news) this.values[k] = v;
      for (const [k] of news) this.fire(`change:${k}`);
    }
    receive(content, buffers) { this.fire("msg:custom", content, buffers.map(decode)); }
  }
  const revived = Object.fromEntries(Object.entries(state).map(([k, v]) => [k, revive(v)]));
  const model = new Model(revived);
  const style = document.createElement("style"); style.textContent = css; document.head.append(style);
  const el = document.createElement("div"); el.id = id; document.body.append(el);
  const url = URL.createObjectURL(new Blob([esm], { type: "text/javascript" }));
  const { default: widget } = await import(url);
  const clean = await widget.render({ model, el });
  (window.stage ||= {})[id] = { model, el, clean };
}
