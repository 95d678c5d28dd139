// Attention as it is packed, in words, and as sound.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AttentionMap, asLoudAs, bytesOfClip, quantile, readAloud, stepAloud } from "../../widgets/static/attention_map.js";

const MAP = { layers: [3], heads: [0, 5], rows: 2, columns: 3, pool: 1, frame_rate: 50, tolerance_s: 0.02, target_s: 0.04, context_s: 0.06 };

// Head 0: row 0 all on column 0, row 1 alike on all; head 5: nothing but row 1 on column 2.
function make(map = MAP) {
  const values = Uint8Array.from([255, 0, 0, 255, 255, 255, 0, 0, 0, 0, 0, 255]);
  const tops = new Uint8Array(Float32Array.from([0.5, 0.25, 0, 0.125]).buffer);
  const shares = Uint8Array.from([128, 0, 0, 127, 191, 0, 0, 64, 0, 255, 0, 0, 32, 0, 0, 223]);
  return new AttentionMap(Uint8Array.from([...values, ...tops, ...shares]), map);
}
const near = (found, expected, atol = 1e-6) => {
  assert.equal(found.length, expected.length);
  expected.forEach((x, i) => assert.ok(Math.abs(found[i] - x) <= atol, `${[...found]} is not ${expected}`));
};

test("one head, and the mean of heads and layers", () => {
  const map = make();
  near(map.row(3, 0, 0), [0.5, 0, 0]);
  near(map.row(3, 0, 1), [0.25, 0.25, 0.25]);
  near(map.row(3, 5, 1), [0, 0, 0.125]);
  near(map.row(3, -1, 1), [0.125, 0.125, 0.1875]);
  near(map.row(-1, -1, 1), map.row(3, -1, 1));
  near(map.all(3, 0), [0.5, 0, 0, 0.25, 0.25, 0.25]);
  near(map.all(3, 5), [0, 0, 0, 0, 0, 0.125]);
});

test("halves of a top are a quarter of 255 squared", () => {
  const bytes = Uint8Array.from([255, 127, 0, ...new Uint8Array(Float32Array.from([1]).buffer), 0, 0, 0, 0]);
  const map = new AttentionMap(bytes, { ...MAP, heads: [0], rows: 1 });
  near(map.row(3, 0, 0), [1, (127 / 255) ** 2, 0]);
});

test("shares, and a step in words", () => {
  const map = make();
  assert.ok(Math.abs(map.shares(3, 0, 0).context - 0.5) < 0.01);
  assert.equal(map.shares(3, 5, 0).token, 1);
  assert.equal(map.describe(3, 0, 0),
    "It gives the context 50 %, most at 0.00 s (+0.00 s), 100 % of it near its own time. To the token 0 %, to the start 0 %, to its own past 50 %.");
  assert.match(map.describe(3, 5, 1), /most at 0.04 s \(\+0.02 s\), 100 % of it near/);
  assert.match(map.describe(3, 5, 0), /^It gives the context 0 %\. To the token 100 %/);
  assert.equal(map.rowAt(0.021), 1);
  assert.equal(map.rowAt(9), 1);
  assert.equal(map.rowAt(-1), 0);
});

test("bytes that are too few are an error", () => {
  assert.throws(() => new AttentionMap(new Uint8Array(12), MAP), /RangeError|cut short|bounds|length/i);
});

test("bytes travel as samples and come back", () => {
  const bytes = Uint8Array.from([0, 1, 2, 127, 128, 255, 255, 255, 0, 128]);
  const samples = Float32Array.from(new Int16Array(bytes.buffer), (x) => x / 32768);
  assert.deepEqual([...bytesOfClip({ channels: [samples] })], [...bytes]);
});

test("a quantile, of few and of many", () => {
  assert.equal(quantile([3, 1, 2, 4], 0.5), 3);
  const many = Float32Array.from({ length: 200000 }, (_, i) => i / 200000);
  assert.ok(Math.abs(quantile(many, 0.995) - 0.995) < 0.001);
  assert.equal(quantile([], 0.5), 0);
});

test("a diagonal reads the context as it is", () => {
  const step = 100, n = 20, samples = Float32Array.from({ length: n * step }, (_, i) => Math.sin(i / 7));
  const own = new Float32Array(n * n);
  for (let i = 0; i < n; i++) own[i * n + i] = 1;
  const read = readAloud(own, n, n, samples, step, n * step);
  for (let i = step; i < (n - 1) * step; i++) assert.ok(Math.abs(read[i] - samples[i]) < 1e-3);
  const late = new Float32Array(n * n); // looks five frames ahead: hears what comes
  for (let i = 0; i + 5 < n; i++) late[i * n + i + 5] = 0.5;
  const ahead = readAloud(late, n, n, samples, step, n * step);
  for (let i = step; i < (n - 7) * step; i++) assert.ok(Math.abs(ahead[i] - 0.5 * samples[i + 5 * step]) < 1e-3);
});

test("one step: only what it looks at is heard", () => {
  const step = 100, samples = new Float32Array(2000).fill(1), row = new Float32Array(20);
  row[10] = 0.3;
  const { samples: heard, from } = stepAloud(row, samples, step, 4);
  assert.equal(from, 600);
  assert.equal(heard.length, 900);
  assert.ok(Math.abs(heard[450] - 1) < 1e-6);
  assert.equal(heard[0], 0);
  assert.equal(heard[899], 0);
});

test("as loud as others, never above full scale", () => {
  const soft = new Float32Array(100).map((_, i) => (i % 2 ? 0.01 : -0.01)), loud = soft.map((x) => 20 * x);
  near(asLoudAs(soft, loud), [...loud], 1e-6);
  assert.ok(Math.max(...asLoudAs(soft, new Float32Array(100).fill(500), 1000)) <= 1);
  assert.equal(Math.max(...asLoudAs(new Float32Array(10), loud)), 0);
});
