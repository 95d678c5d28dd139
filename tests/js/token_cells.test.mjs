// Which token stands where, at every step of the delay; equality with Python is tested from Python.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Cells, lostDb, windowOf } from "../../widgets/static/token_cells.js";

// Two codebooks of 10 codes: context 1 2 in codebook 0 and 3 4 in codebook 1, target 5 6 and 7 8.
const SPECIAL = 10, TOKEN = 11;
const SEQUENCE = [
  [SPECIAL, 1, 2, TOKEN, 5, 6, SPECIAL],
  [SPECIAL, SPECIAL, 3, 4, TOKEN, 7, 8],
];
const LOSS = [[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 1, 1]];

function cells({ pad = 0, attention = [1, 1, 1, 1, 1, 1, 1] } = {}) {
  const numbers = Int16Array.from([...SEQUENCE.flat(), 0, 1, 2, 3, 4, 5, 6, ...attention, ...LOSS.flat()]);
  const text = btoa(String.fromCharCode(...new Uint8Array(numbers.buffer)));
  return new Cells(text, { n_q: 2, steps: 7, card: 10, width: 3, pad, frame_rate: 50, heard: 2 });
}

const table = (c, delay) =>
  [0, 1].map((k) => Array.from({ length: c.columns(delay) }, (_, column) => c.at(k, column, delay).id));

test("from frames to the model's sequence, one step of the delay after the other", () => {
  const c = cells();
  assert.deepEqual(table(c, 0), [[1, 2, TOKEN, 5, 6], [3, 4, TOKEN, 7, 8]]);
  assert.deepEqual(table(c, 1), [[SPECIAL, 1, 2, TOKEN, 5, 6], [SPECIAL, 3, 4, TOKEN, 7, 8]]);
  assert.deepEqual(table(c, 2), SEQUENCE);
});

test("the loss belongs to the code, wherever the delay shows it", () => {
  const c = cells();
  assert.deepEqual([0, 1].map((k) => SEQUENCE[k].map((_, s) => Number(c.at(k, s, 2).loss))), LOSS);
  assert.equal(c.at(1, 3, 0).loss, true);
  assert.equal(c.at(1, 2, 0).loss, false);
});

test("a place in words", () => {
  const c = cells();
  assert.equal(c.describe(0, 2, 2), "step 2 · codebook 0 · code 2 · frame 1 of the context, 0.02 s · position 2 · other steps look at it");
  assert.equal(c.describe(1, 4, 2), "step 4 · codebook 1 · context token 11 · position 4 · other steps look at it");
  assert.match(c.describe(1, 6, 2), /code 8 · frame 1 of the target, 0.02 s .* counts in the loss$/);
  assert.match(c.describe(0, 6, 2), /special token 10, no code/);
  assert.equal(c.describe(0, 0, 0), "column 0 · codebook 0 · code 1 · frame 0 of the context, 0.00 s");
});

test("a padded row: its first steps are hidden, and no part of the context", () => {
  const c = cells({ pad: 1, attention: [0, 1, 1, 1, 1, 1, 1] });
  assert.match(c.describe(0, 1, 2), /padding of a batch/);
  assert.match(c.describe(0, 2, 2), /frame 0 of the context/);
  assert.match(c.describe(0, 0, 2), /hidden from all other steps/);
  assert.deepEqual(c.parts(2).map(([from, to, name]) => [from, to, name]), [
    [1, 2, "padding"], [2, 3, "context"], [3, 4, "token"], [4, 6, "target"]]);
});

test("without a context there is only the target", () => {
  const numbers = Int16Array.from([SPECIAL, 5, 6, 0, 1, 2, 1, 1, 1, 0, 1, 1]);
  const text = btoa(String.fromCharCode(...new Uint8Array(numbers.buffer)));
  const c = new Cells(text, { n_q: 1, steps: 3, card: 10, width: 0, pad: 0, frame_rate: 50, heard: 2 });
  assert.deepEqual(c.parts(1), [[1, 3, "target"]]);
  assert.match(c.describe(0, 1, 1), /frame 0 of the target/);
});

test("each step of the delay has its sentence", () => {
  const c = cells();
  assert.equal(new Set([0, 1, 2].map((d) => c.stage(d))).size, 3);
});

test("a window stays inside and shows its column", () => {
  assert.deepEqual(windowOf(50, 20, 100), [40, 60]);
  assert.deepEqual(windowOf(2, 20, 100), [0, 20]);
  assert.deepEqual(windowOf(99, 20, 100), [80, 100]);
  assert.deepEqual(windowOf(5, 900, 30), [0, 30]);
});

test("what is lost, in dB", () => {
  assert.equal(lostDb([1, -1, 1, -1], [1, -1, 1, -1]), -Infinity);
  assert.equal(lostDb([1, -1, 1, -1], [0, 0, 0, 0]), 0);
  assert.ok(Math.abs(lostDb([1, 1], [0.9, 0.9]) + 20) < 1e-9);
  assert.equal(lostDb([0, 0], [0, 0]), -Infinity);
});
