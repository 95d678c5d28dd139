// The engine on a fake context: what is scheduled, on which clock.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Engine, fromDb, levels } from "../../widgets/static/engine.js";

const RATE = 32000;

class Param {
  constructor() { this.value = 1; this.events = []; }
  setValueAtTime(value, at) { this.value = value; this.events.push(["set", value, at]); }
  linearRampToValueAtTime(value, at) { this.value = value; this.events.push(["ramp", value, at]); }
  cancelScheduledValues() {}
}

class Node {
  constructor() { this.to = []; }
  connect(node) { this.to.push(node); }
  disconnect() { this.to = []; }
}

class FakeContext {
  constructor() {
    Object.assign(this, { sampleRate: RATE, currentTime: 0, destination: new Node(), sources: [], state: "running", closed: 0 });
  }
  createGain() { return Object.assign(new Node(), { gain: new Param() }); }
  createBuffer(channels, length, rate) {
    return { channels, length, rate, planes: [], copyToChannel(plane, c) { this.planes[c] = plane; } };
  }
  createBufferSource() {
    const source = Object.assign(new Node(), {
      start(...at) { this.started = at; }, stop(...at) { this.stopped = at; },
    });
    this.sources.push(source);
    return source;
  }
  resume() { return Promise.resolve(); }
  close() { this.closed++; this.state = "closed"; return Promise.resolve(); }
}

const clip = (seconds) => ({ channels: [new Float32Array(seconds * RATE)], length: seconds * RATE, rate: RATE });

function make(more = {}) {
  const context = new FakeContext();
  let made = 0;
  const tracks = [
    { name: "drums", versions: [{ name: "a", clip: clip(8) }, { name: "b", clip: clip(8) }], version: 0, level: 1 },
    { name: "bass", versions: [{ name: "only", clip: clip(3) }], level: 0.5 },
  ];
  const engine = new Engine({ tracks, duration: 8, rate: RATE, makeContext: () => (made++, context), ...more });
  return { engine, context, made: () => made, running: () => context.sources.filter((s) => !s.stopped) };
}

test("no context before the first play, one after it", () => {
  const { engine, made } = make();
  engine.setLevel(0, 0.3);
  engine.setLoop([1, 2]);
  engine.seek(3);
  assert.equal(made(), 0);
  engine.play();
  engine.pause();
  engine.play();
  assert.equal(made(), 1);
});

test("all sources start at one time, from one place, with one length", () => {
  const { engine, context, running } = make();
  context.currentTime = 0.123456;
  engine.play(2);
  assert.equal(running().length, 3);
  const [first] = running();
  for (const source of running()) {
    assert.deepEqual(source.started, first.started);
    assert.equal(source.buffer.length, 8 * RATE);
  }
  const frame = first.started[0] * RATE;
  assert.ok(Math.abs(frame - Math.round(frame)) < 1e-6, "on a whole sample");
  assert.ok(first.started[0] >= 0.123456);
  assert.equal(first.started[1], 2);
});

test("the place follows the context's clock, through pause and seek", () => {
  const { engine, context } = make({ leadS: 0 });
  engine.play();
  context.currentTime = 1.5;
  assert.equal(engine.position(), 1.5);
  engine.pause();
  context.currentTime = 9;
  assert.equal(engine.position(), 1.5);
  engine.play();
  context.currentTime = 10;
  assert.equal(engine.position(), 2.5);
  engine.seek(7);
  assert.equal(engine.position(), 7);
  context.currentTime = 99;
  assert.equal(engine.position(), 8, "never behind the end");
});

test("a seek stops the old sources at the very time at which the new ones start", () => {
  const { engine, context, running } = make();
  engine.play();
  const old = running();
  context.currentTime = 1;
  engine.seek(4);
  const fresh = running();
  assert.equal(fresh.length, 3);
  for (const source of old) assert.equal(source.stopped[0], fresh[0].started[0]);
});

test("after three minutes of looping every source has the same loop, in whole samples", () => {
  const { engine, context, running } = make({ leadS: 0 });
  engine.setLoop([1.00001, 3.33333]);
  const [from, to] = engine.loop;
  assert.equal(from * RATE, Math.round(1.00001 * RATE));
  assert.equal(Math.round(to * RATE), Math.round(3.33333 * RATE));
  engine.play(from);
  for (const source of running()) {
    assert.deepEqual([source.loop, source.loopStart, source.loopEnd], [true, from, to]);
  }
  const turn = to - from;
  context.currentTime = 180;
  assert.ok(Math.abs(engine.position() - (from + (180 % turn))) < 1e-6);
});

test("a loop that is too short or backwards is none", () => {
  const { engine } = make();
  for (const range of [[2, 2], [3, 1], [2, 2.001]]) {
    engine.setLoop(range);
    assert.equal(engine.loop, null);
  }
});

test("a version is switched while all go on: the place stays, no source is touched", () => {
  const { engine, context, running } = make({ leadS: 0 });
  engine.play();
  context.currentTime = 2;
  const before = running();
  engine.setVersion(0, 1);
  assert.deepEqual(running(), before);
  assert.equal(engine.position(), 2);
  const [a, b] = before.slice(0, 2).map((source) => source.to[0].gain);
  assert.deepEqual([a.value, b.value], [0, 1]);
});

test("levels glide, so that nothing clicks", () => {
  const { engine, context } = make();
  engine.play();
  context.currentTime = 1;
  engine.setLevel(1, 0);
  const ramp = engine.nodes[1].level.gain.events.at(-1);
  assert.equal(ramp[0], "ramp");
  assert.equal(ramp[1], 0);
  assert.ok(ramp[2] > 1);
});

test("the end without a loop is told once, and play begins anew", () => {
  let ends = 0;
  const { engine, running } = make({ onEnd: () => ends++ });
  engine.play(7);
  const [last, ...others] = running();
  others.forEach((source) => source.onended());
  assert.deepEqual([ends, last.stopped], [0, undefined]); // it may still be in its last block
  last.onended();
  assert.equal(ends, 1);
  assert.equal(engine.playing, false);
  assert.equal(engine.position(), 8);
  engine.play();
  assert.equal(running().at(-1).started[1], 0);
});

test("close stops everything and gives the device back", () => {
  const { engine, context, running } = make();
  engine.play();
  engine.close();
  assert.equal(running().length, 0);
  assert.equal(context.closed, 1);
  assert.throws(() => engine.play(), /closed/);
});

test("other tracks take over at the same place", () => {
  const { engine, context, running } = make({ leadS: 0 });
  engine.play();
  context.currentTime = 2;
  engine.setTracks([{ name: "x", versions: [{ name: "only", clip: clip(4) }] }], 4);
  assert.equal(running().length, 1);
  assert.equal(running()[0].started[1], 2);
});

test("solo, mute and gain as a table", () => {
  const stem = (gain, mute, solo) => ({ gain, mute, solo });
  assert.deepEqual(levels([stem(1), stem(0.5), stem(2, true)]), [1, 0.5, 0]);
  assert.deepEqual(levels([stem(1), stem(0.5, false, true), stem(2, true, true)]), [0, 0.5, 0]);
  assert.deepEqual(levels([]), []);
  assert.equal(fromDb(-60), 0);
  assert.equal(fromDb(0), 1);
  assert.ok(Math.abs(fromDb(-6) - 0.5012) < 1e-4);
});

test("without Web Audio a sentence comes, and no context", () => {
  const engine = new Engine({ tracks: [], duration: 1, rate: RATE });
  assert.throws(() => engine.play(), /no Web Audio/);
});
