// The page of a listening test: its buttons, and what is missing from an answer.
import assert from "node:assert/strict";
import { test } from "node:test";
import { buttonsOf, missing, rating } from "../../widgets/static/listening.js";

const PAIR = { form: "pairs", count: 2, reference: false, context: true };
const SHEET = { form: "sheets", count: 4, reference: true, context: false };

test("the buttons of a page say nothing but places", () => {
  assert.deepEqual(buttonsOf(PAIR).map(({ key, shortcut }) => [key, shortcut]), [["1", "1"], ["2", "2"], ["context", "m"]]);
  assert.deepEqual(buttonsOf(SHEET).map(({ label }) => label), ["Reference", "Clip 1", "Clip 2", "Clip 3", "Clip 4"]);
});

test("a pair is answered when both were heard and one was chosen", () => {
  assert.equal(missing(PAIR, new Set(), { choice: "left" }), "Listen to left, right first.");
  assert.equal(missing(PAIR, new Set(["1", "context"]), { choice: "left" }), "Listen to right first.");
  assert.equal(missing(PAIR, new Set(["1", "2"]), { choice: null }), "Choose left or right.");
  assert.equal(missing(PAIR, new Set(["1", "2"]), { choice: "right" }), "");
});

test("a sheet is answered when every slider was moved, to 0 too", () => {
  const heard = new Set(["1", "2", "3", "4"]);
  assert.equal(missing(SHEET, new Set(["1", "reference"]), { ratings: [1, 2, 3, 4] }), "Listen to clip 2, clip 3, clip 4 first.");
  const ratings = new Array(4);
  [ratings[0], ratings[2]] = [0, 100];
  assert.equal(missing(SHEET, heard, { ratings }), "Move the slider of clip 2, clip 4.");
  [ratings[1], ratings[3]] = [50, 50];
  assert.equal(missing(SHEET, heard, { ratings }), "");
});

test("ratings are read with their word, at both ends too", () => {
  assert.deepEqual([0, 19, 20, 59, 99, 100].map(rating),
    ["0, bad", "19, bad", "20, poor", "59, fair", "99, excellent", "100, excellent"]);
});
