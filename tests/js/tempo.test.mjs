// Tempo by hand and by tapping; equality with Python's grid is tested from Python.
import assert from "node:assert/strict";
import { test } from "node:test";
import { beatGrid, offbeatTimes, tempoAt, tempoOfTaps } from "../../widgets/static/tempo.js";
import { clickTrack } from "../../widgets/static/click.js";
import { peaks, clock } from "../../widgets/static/wave.js";

test("taps: the median, so that one late finger does not count", () => {
  assert.equal(tempoOfTaps([1]), null);
  assert.equal(tempoOfTaps([0, 0.5, 1, 1.5]), 120);
  assert.equal(tempoOfTaps([0, 0.5, 1, 1.7, 2.2, 2.7]), 120);
  assert.equal(tempoOfTaps([0, 0.5, 10, 10.6, 11.2]), 100, "a pause begins anew");
  assert.equal(tempoOfTaps([0, 0.01, 0.02]), 400, "within what the pad takes");
});

test("a grid of 3/4 with an upbeat", () => {
  const { beats, downbeats } = beatGrid({ bpm: 120, perBar: 3, duration: 2, start: 0.5 });
  assert.deepEqual(beats, [0, 0.5, 1, 1.5]);
  assert.deepEqual(downbeats, [0.5]);
});

test("a curve holds its first and last tempo", () => {
  const curve = [[1, 60], [3, 120]];
  assert.deepEqual([0, 1, 2, 3, 9].map((t) => tempoAt(curve, t)), [60, 60, 90, 120, 120]);
});

test("swing moves off-beats only", () => {
  assert.deepEqual(offbeatTimes([0, 1, 2], 0.5), [0.5, 1.5]);
  assert.deepEqual(offbeatTimes([0, 1], 0.75), [0.75]);
  assert.deepEqual(offbeatTimes([], 0.5), []);
});

test("a click begins on its sample; times outside make no sound", () => {
  const track = clickTrack([-1, 0.25, 5], [], 1, 8000);
  assert.equal(track.length, 8000);
  assert.equal(track.findIndex((x) => x !== 0), 2001); // sin(0) = 0 at sample 2000
  assert.ok(Math.max(...track) <= 1);
});

test("peaks keep a single sample", () => {
  const samples = new Float32Array(1000);
  samples[777] = -0.5;
  const found = peaks(samples, 10);
  assert.equal(found[14], -0.5);
  assert.equal(found.filter((x) => x !== 0).length, 1);
});

test("clock", () => {
  assert.equal(clock(83.25), "1:23.3");
  assert.equal(clock(59.96), "1:00.0");
});
