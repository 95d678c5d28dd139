import { byteLength, toBytes, toFloats } from "./bytes.js";

// The clips of a widget, read once for all of its views. The model then forgets the bytes, so that
// a notebook saved with widget state does not hold them.
const kept = new Map(); // the audio's word -> Map of clips

/** Cut the bytes of all clips: Map of name -> { channels: [Float32Array], length, rate }. */
export function cut(bytes, index, rate) {
  const clips = new Map();
  for (const { name, offset, channels, samples } of index) {
    const planes = [];
    for (let c = 0; c < channels; c++) planes.push(toFloats(bytes, offset + 2 * c * samples, samples));
    clips.set(name, { channels: planes, length: samples, rate });
  }
  return clips;
}

/**
 * The clips of a model, as soon as its bytes are here. Where the first message lost them (Colab) they
 * are asked for again as buffers, and at last as base64 text.
 */
export async function loadClips(model, { waitMs = 4000 } = {}) {
  const index = model.get("_clips") || [];
  if (!index.length) return new Map();
  const key = model.get("_sent") + JSON.stringify(index);
  let bytes = model.get("_pcm");
  if (!byteLength(bytes)) {
    if (kept.has(key)) return kept.get(key);
    bytes = (await ask(model, false, waitMs)) || (await ask(model, true, 5 * waitMs));
    if (!bytes) throw new Error("The audio did not arrive. Run the cell again.");
  }
  const clips = cut(bytes, index, model.get("_rate"));
  kept.clear(); // one model per module: only its newest audio is of use
  kept.set(key, clips);
  model.set("_pcm", new DataView(new ArrayBuffer(0)));
  return clips;
}

function ask(model, base64, waitMs) {
  return new Promise((resolve) => {
    const done = (value) => {
      clearTimeout(timer);
      model.off("msg:custom", heard);
      resolve(value);
    };
    const heard = (content, buffers) => {
      if (content?.kind !== "audio") return;
      const bytes = content.base64 ? toBytes(content.base64) : buffers?.[0];
      if (byteLength(bytes)) done(bytes);
      else if (!base64) done(null);
    };
    const timer = setTimeout(() => done(null), waitMs);
    model.on("msg:custom", heard);
    model.send({ kind: "audio_please", base64 });
  });
}
