// Okabe and Ito's colours, which colour-blind readers can tell apart; the same as in stage_lite.plots.
const OF = {
  drums: "#D55E00", bass: "#0072B2", keys: "#009E73", guitar: "#E69F00", other: "#CC79A7",
  mix: "#56B4E9",
};
const ROUND = Object.values(OF);

/** A stem's own colour; others take the colours in turn. */
export function colourOf(name, place = 0) {
  return OF[String(name).toLowerCase()] || ROUND[place % ROUND.length];
}

/** Cividis, from dark blue to yellow: [r, g, b] for x in [0, 1]. */
export function cividis(x) {
  const stops = [[0, 34, 78], [65, 77, 107], [124, 123, 120], [188, 175, 111], [254, 232, 56]];
  const at = Math.max(0, Math.min(1, x || 0)) * (stops.length - 1);
  const i = Math.min(stops.length - 2, Math.floor(at));
  return stops[i].map((low, c) => Math.round(low + (stops[i + 1][c] - low) * (at - i)));
}
