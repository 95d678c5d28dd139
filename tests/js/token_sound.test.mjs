// What the token grid plays: the chosen codebooks, or what they leave out.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Sounding } from "../../widgets/static/token_sound.js";

const clip = (...samples) => ({ channels: [Float32Array.from(samples)], length: samples.length, rate: 8 });

class FakeEngine {
  constructor(tracks) { Object.assign(this, { tracks, switched: [], replaced: 0 }); }
  setVersion(_, version) { this.switched.push(version); this.tracks[0].version = version; }
  setTracks(tracks) { this.replaced++; this.tracks = tracks; }
  heard() { return this.tracks[0].versions[this.tracks[0].version]; }
}

function make(values = {}) {
  const grid = new Sounding(), node = () => ({ setAttribute(name, value) { this[name] = value; } });
  const sent = [], said = [], traits = { codebooks: [0, 1, 2], lost: false, ...values };
  grid.cells = { k: 3 };
  grid.ui = { get: (name) => traits[name], send: (...message) => sent.push(message), say: (text) => said.push(text), gone: false };
  grid.sounds = new Map([["0", clip(1, 0, 0)], ["0,1", clip(1, 2, 0)], ["0,1,2", clip(1, 2, 4)], ["", clip(0, 0, 0)]]);
  Object.assign(grid, { lostButton: node(), words: {}, bookButtons: [node(), node(), node()], redraw() {} });
  grid.engine = new FakeEngine(grid.tracks());
  return { grid, sent, said, traits, played: () => [...grid.engine.heard().clip.channels[0]] };
}

test("codebooks that are on, and what they leave out", () => {
  const { grid, traits, played } = make();
  grid.hear();
  assert.deepEqual(played(), [1, 2, 4]);
  traits.codebooks = [0];
  grid.hear();
  assert.deepEqual(played(), [1, 0, 0]);
  assert.equal(grid.engine.replaced, 0, "sounds that are here are switched, the place stays");
  assert.match(grid.words.textContent, /^Off: codebook 1, 2\. What is lost has -0\.2 dB/);
  traits.lost = true;
  grid.hear();
  assert.deepEqual(played(), [0, 2, 4]);
  assert.match(grid.words.textContent, /You hear what is lost\.$/);
  assert.equal(grid.lostButton["aria-pressed"], true);
  traits.codebooks = [];
  grid.hear();
  assert.deepEqual(played(), [1, 2, 4]);
  traits.codebooks = [0, 1, 2];
  grid.hear();
  assert.deepEqual(played(), [0, 0, 0]);
  assert.match(grid.words.textContent, /You hear what is lost: nothing\.$/);
});

test("codebooks with a gap are asked for, and heard when they come", () => {
  const { grid, sent, played } = make({ codebooks: [0, 2], lost: true });
  grid.hear();
  assert.deepEqual(sent, [["decode", { codebooks: [0, 2] }]]);
  assert.match(grid.words.textContent, /Python decodes/);
  const bytes = new Uint8Array(Int16Array.from([8192, 0, 16384]).buffer);
  grid.arrived("0,2", bytes);
  assert.deepEqual(played(), [0.75, 2, 3.5]);
  assert.equal(sent.length, 1);
});
