// The engine on an offline context, for test_widgets_page.py; samples travel as base64 of float32.
import { Engine } from "/engine.js";

const floats = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);

function coded(samples) {
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192)
    text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

/** tracks: [{ versions: [base64], level }]; script sees `engine` and `at(time, fn)`; last: seconds. */
export async function render([tracks, duration, seconds, rate, script, last]) {
  const context = new OfflineAudioContext(1, Math.round(seconds * rate), rate);
  const clip = (samples) => ({ channels: [samples], length: samples.length, rate });
  const list = tracks.map((track) => ({
    ...track, versions: track.versions.map((text) => ({ name: "v", clip: clip(floats(text)) })),
  }));
  const makeContext = () => context;
  const engine = new Engine({ tracks: list, duration, rate, makeContext, leadS: 0 });
  const at = (time, fn) => context.suspend(time).then(() => { fn(); context.resume(); });
  new Function("engine", "at", script || "engine.play(0)")(engine, at);
  const samples = (await context.startRendering()).getChannelData(0);
  return coded(samples.slice(last ? samples.length - Math.round(last * rate) : 0));
}
