// Bytes in every form in which a front end hands them over, and lost ones.
import assert from "node:assert/strict";
import { test } from "node:test";
import { byteLength, toBytes, toFloats, wavFile } from "../../widgets/static/bytes.js";
import { cut, loadClips } from "../../widgets/static/clips.js";

const SAMPLES = Int16Array.from([0, 16384, -32768, 32767, -1, 1]);
const INDEX = [
  { name: "a", offset: 0, channels: 2, samples: 2 },
  { name: "b", offset: 8, channels: 1, samples: 2 },
];
const bytes = () => new Uint8Array(SAMPLES.buffer.slice(0));
const base64 = btoa(String.fromCharCode(...bytes()));

class FakeModel {
  constructor(values, answer) { Object.assign(this, { values, answer, asked: [], calls: new Set() }); }
  get(name) { return this.values[name]; }
  set(name, value) { this.values[name] = value; }
  on(_, fn) { this.calls.add(fn); }
  off(_, fn) { this.calls.delete(fn); }
  send(content) {
    this.asked.push(content);
    setTimeout(() => this.answer && [...this.calls].forEach((fn) => fn(...this.answer(content))), 1);
  }
}
let word = 0;
const model = (pcm, answer) => new FakeModel({ _pcm: pcm, _clips: INDEX, _rate: 8000, _sent: `w${word++}` }, answer);
const right = (clips) => {
  assert.deepEqual([...clips.keys()], ["a", "b"]);
  assert.deepEqual(clips.get("a").channels.map((plane) => [...plane]), [[0, 0.5], [-1, 32767 / 32768]]);
  assert.deepEqual([...clips.get("b").channels[0]], [-1 / 32768, 1 / 32768]);
  assert.equal(clips.get("b").rate, 8000);
};

test("DataView, Uint8Array, ArrayBuffer and base64 are the same samples", () => {
  const shifted = new Uint8Array([9, ...bytes()]);
  const forms = [
    new DataView(bytes().buffer), bytes(), bytes().buffer, base64,
    new DataView(shifted.buffer, 1), shifted.subarray(1),
  ];
  for (const form of forms) right(cut(toBytes(form), INDEX, 8000));
  assert.equal(byteLength(undefined), 0);
  assert.equal(byteLength(null), 0);
});

test("bytes that are too few are an error, not silence", () => {
  assert.throws(() => toFloats(bytes().subarray(0, 5), 0, 6), /cut short/);
});

test("the first message brings the bytes; the model forgets them and a second view still has them", async () => {
  const there = model(new DataView(bytes().buffer));
  right(await loadClips(there));
  assert.equal(byteLength(there.get("_pcm")), 0);
  assert.deepEqual(there.asked, []);
  right(await loadClips(there));
});

test("bytes lost from the first message are asked for", async () => {
  const there = model(undefined, () => [{ kind: "audio" }, [bytes()]]);
  right(await loadClips(there, { waitMs: 500 }));
  assert.deepEqual(there.asked, [{ kind: "audio_please", base64: false }]);
});

test("buffers lost from every message: base64 at last", async () => {
  const answer = ({ base64: text }) => (text ? [{ kind: "audio", base64 }, []] : [{ kind: "audio" }, []]);
  const there = model(new DataView(new ArrayBuffer(0)), answer);
  right(await loadClips(there, { waitMs: 500 }));
  assert.deepEqual(there.asked.map((a) => a.base64), [false, true]);
  assert.equal(there.calls.size, 0, "no listener is left");
});

test("no answer at all: a sentence", async () => {
  await assert.rejects(loadClips(model(null), { waitMs: 5 }), /Run the cell again/);
});

test("new audio of the same lengths is not the old one", async () => {
  const there = model(new DataView(bytes().buffer));
  right(await loadClips(there));
  there.values._sent = "another";
  there.values._pcm = new DataView(new Int16Array(6).buffer);
  const clips = await loadClips(there);
  assert.deepEqual([...clips.get("a").channels[0]], [0, 0]);
});

test("a widget without audio asks for nothing", async () => {
  const there = new FakeModel({ _clips: [] });
  assert.equal((await loadClips(there)).size, 0);
});

test("a WAV file holds the samples that were given", () => {
  const file = wavFile([Float32Array.of(0, 0.5), Float32Array.of(-1, 1.5)], 32000);
  const view = new DataView(file.buffer);
  assert.equal(file.length, 44 + 8);
  assert.equal(view.getUint32(24, true), 32000);
  assert.deepEqual([44, 46, 48, 50].map((at) => view.getInt16(at, true)), [0, -32768, 16384, 32767]);
});
