// The panel: who is heard, how loud, what fields and progress say, what files and microphones do.
import assert from "node:assert/strict";
import { test } from "node:test";
import { numberOf, progressText } from "../../widgets/static/accompanist_form.js";
import { MAX_FILE_BYTES, microphoneFault, mono, readFile, record, toInt16 } from "../../widgets/static/audio_in.js";
import { audible, headroom } from "../../widgets/static/desk.js";

const song = (more) => ({ context: { key: "c1", click: false }, takes: [{ id: 1 }, { id: 2 }, { id: 3 }], kept: [1], ...more });
const choice = (more) => ({ muted: new Set(), tried: null, alone: false, ...more });
const on = (levels) => [...levels].filter(([, level]) => level).map(([key]) => key);

test("context and kept stems are heard, and the take that is tried", () => {
  assert.deepEqual(on(audible(song(), choice())), ["c1", 1]);
  assert.deepEqual(on(audible(song(), choice({ tried: 3 }))), ["c1", 1, 3]);
  assert.deepEqual(on(audible(song(), choice({ tried: 3, muted: new Set([1, "c1"]) }))), [3]);
  assert.deepEqual(on(audible(song(), choice({ tried: 2, alone: true }))), [2]);
  assert.deepEqual(on(audible(song(), choice({ tried: 9, alone: true }))), ["c1", 1], "a take that is gone");
});

test("a click gives way to the first stem that is kept", () => {
  const context = { key: "c1", click: true };
  assert.deepEqual(on(audible(song({ context, kept: [] }), choice({ tried: 1 }))), ["c1", 1]);
  assert.deepEqual(on(audible(song({ context }), choice())), [1]);
  assert.deepEqual(on(audible(song({ context: null, kept: [] }), choice())), []);
});

test("the sum of what is heard does not clip", () => {
  const clip = (...values) => ({ channels: [Float32Array.from(values)], length: values.length });
  assert.equal(headroom([]), 1);
  assert.equal(headroom([clip(0.5, -0.5), clip(0.5)]), 1);
  const gain = headroom([clip(0.5, -0.9), clip(0, -0.9, 0.1)]);
  assert.ok(Math.abs(gain * 1.8 - 0.98) < 1e-6);
});

test("number fields", () => {
  assert.equal(numberOf(" 2,5 ", 0, 20, "Guidance"), 2.5);
  assert.equal(numberOf("7", 0, 9, "The seed", true), 7);
  for (const text of ["", "x", "21", "-1", "NaN", "Infinity"])
    assert.throws(() => numberOf(text, 0, 20, "Guidance"), /Guidance is ".*"; expected a number from 0 to 20/);
  assert.throws(() => numberOf("1.5", 0, 9, "The seed", true), /whole number/);
});

test("progress", () => {
  assert.equal(progressText({ state: "generating", done: 0, total: 0, text: "bass" }, 0), "bass: beginning");
  assert.equal(progressText({ state: "generating", done: 100, total: 400, text: "bass" }, 2), "bass: 25 %, about 6 s left");
  assert.equal(progressText({ state: "generating", done: 400, total: 400, text: "bass" }, 8), "bass: 100 %");
  assert.equal(progressText({ state: "cancelling", done: 1, total: 2, text: "Cancelling ..." }, 8), "Cancelling ...");
});

test("samples", () => {
  assert.deepEqual([...mono([Float32Array.from([1, 0]), Float32Array.from([0, -1])])], [0.5, -0.5]);
  assert.deepEqual([...toInt16(Float32Array.from([0, 0.5, 1, -1, 2, -2]))], [0, 16384, 32767, -32768, 32767, -32768]);
});

const file = (name, bytes, size = bytes.byteLength) => ({ name, size, arrayBuffer: async () => bytes.buffer });

test("files: empty, huge, not sound", async () => {
  await assert.rejects(readFile(file("a.wav", new Uint8Array(0)), 32000), /a\.wav is empty/);
  await assert.rejects(readFile(file("a.wav", new Uint8Array(1), MAX_FILE_BYTES + 1), 32000), /at most 200/);
  globalThis.OfflineAudioContext = class { async decodeAudioData() { throw new Error("no"); } };
  const text = await readFile(file("a.txt", Uint8Array.from([104, 105])), 32000);
  assert.deepEqual([...new Uint8Array(text.bytes)], [104, 105], "Python may try");
  await assert.rejects(readFile(file("a.bin", new Uint8Array(8_000_001)), 32000), /cannot read a\.bin as sound/);
  globalThis.OfflineAudioContext = class {
    constructor(_, __, rate) { this.rate = rate; }
    async decodeAudioData() {
      return { numberOfChannels: 2, sampleRate: this.rate, getChannelData: (c) => Float32Array.from([c, c]) };
    }
  };
  const { samples, rate } = await readFile(file("a.wav", new Uint8Array(4)), 32000);
  assert.deepEqual([[...samples], rate], [[0.5, 0.5], 32000]);
});

test("no microphone, none allowed, none in this page", async () => {
  const devices = (name) => ({ getUserMedia: async () => { throw Object.assign(new Error("?"), { name }); } });
  await assert.rejects(record(() => {}, undefined), /may not record/);
  globalThis.MediaRecorder = class {};
  await assert.rejects(record(() => {}, devices("NotFoundError")), /No microphone was found/);
  await assert.rejects(record(() => {}, devices("NotAllowedError")), /Allow it for this page/);
  assert.match(microphoneFault(new Error("odd")), /cannot be used \(odd\)/);
});
