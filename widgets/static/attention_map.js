// Attention from frames of the target to frames of the context, as widgets/attention.py packs it.

/** Samples of a clip back into the bytes that they were. */
export function bytesOfClip(clip) {
  const values = Int16Array.from(clip.channels[0], (x) => Math.round(x * 32768));
  return new Uint8Array(values.buffer);
}

export class AttentionMap {
  /** bytes: values [L * H * R * C] (square roots in parts of the row's top), tops float32 [L * H * R],
   * shares [L * H * R * 4]; map: layers, heads, rows, columns, pool, frame_rate, ... */
  constructor(bytes, map) {
    Object.assign(this, map, { l: map.layers.length, h: map.heads.length, r: map.rows, c: map.columns });
    const n = this.l * this.h * this.r;
    this.values = bytes.subarray(0, n * this.c);
    const view = new DataView(bytes.buffer, bytes.byteOffset + n * this.c, 4 * n);
    this.tops = Float32Array.from({ length: n }, (_, i) => view.getFloat32(4 * i, true));
    this.given = bytes.subarray(n * this.c + 4 * n, n * this.c + 8 * n);
    if (this.given.length !== 4 * n) throw new Error("The attention came cut short. Run the cell again.");
    this.squares = Float32Array.from({ length: 256 }, (_, i) => (i / 255) ** 2);
    this.column_s = this.pool / this.frame_rate;
  }

  /** Places of the chosen heads in the arrays; -1 stands for all layers, or all heads. */
  places(layer, head) {
    const i = this.layers.indexOf(layer), j = this.heads.indexOf(head);
    const rows = layer < 0 ? this.layers.map((_, n) => n) : [i];
    const columns = layer < 0 || head < 0 ? this.heads.map((_, n) => n) : [j];
    return rows.flatMap((a) => columns.map((b) => a * this.h + b)).filter((place) => place >= 0);
  }

  /** Attention of one row to each column, Float32Array [C]: the mean over the chosen heads. */
  row(layer, head, r) {
    const places = this.places(layer, head), sum = new Float32Array(this.c);
    for (const place of places) this.add(sum, 0, place, r, 1 / places.length);
    return sum;
  }

  /** All rows, Float32Array [R * C]. */
  all(layer, head) {
    const key = `${layer} ${head}`;
    if (this.kept?.key === key) return this.kept.map;
    const places = this.places(layer, head), map = new Float32Array(this.r * this.c);
    for (const place of places)
      for (let r = 0; r < this.r; r++) this.add(map, r * this.c, place, r, 1 / places.length);
    this.kept = { key, map };
    return map;
  }

  add(to, at, place, r, weight) {
    const line = place * this.r + r, first = line * this.c, scale = this.tops[line] * weight;
    for (let c = 0; c < this.c; c++) to[at + c] += this.squares[this.values[first + c]] * scale;
  }

  /** What goes to context, token, start and own past in one row. */
  shares(layer, head, r) {
    const places = this.places(layer, head), sums = [0, 0, 0, 0];
    for (const place of places)
      for (let i = 0; i < 4; i++) sums[i] += this.given[4 * (place * this.r + r) + i] / 255 / places.length;
    const [context, token, start, own] = sums;
    return { context, token, start, own };
  }

  /** The row that holds a time of the target. */
  rowAt(time) {
    return Math.max(0, Math.min(this.r - 1, Math.floor(time / this.column_s + 1e-6)));
  }

  /** Words for a step: where it looks most, and what else it looks at. */
  describe(layer, head, r) {
    const row = this.row(layer, head, r), { context, token, start, own } = this.shares(layer, head, r);
    let best = 0, near = 0, sum = 0;
    const reach = Math.round(this.tolerance_s / this.column_s);
    row.forEach((value, c) => {
      if (value > row[best]) best = c;
      sum += value;
      if (Math.abs(c - r) <= reach) near += value;
    });
    const late = (best - r) * this.column_s, percent = (x) => `${Math.round(100 * x)} %`;
    const most = sum > 0
      ? `, most at ${(best * this.column_s).toFixed(2)} s (${late < -1e-9 ? "−" : "+"}${Math.abs(late).toFixed(2)} s), ${percent(near / sum)} of it near its own time`
      : "";
    return `It gives the context ${percent(context)}${most}. To the token ${percent(token)}, to the start ${percent(start)}, to its own past ${percent(own)}.`;
  }
}

/** The value that a share of all values does not exceed; of a sample of them where they are many. */
export function quantile(values, share) {
  const every = Math.max(1, Math.floor(values.length / 20000));
  const some = Float32Array.from({ length: Math.ceil(values.length / every) }, (_, i) => values[i * every]).sort();
  return some.length ? some[Math.min(some.length - 1, Math.floor(share * some.length))] : 0;
}

/**
 * The context as the target reads it: for every row, the pieces of the context that it looks at, each
 * as loud as the attention it gets, joined with overlapping windows. Float32Array [length].
 * map: [R * C]; samples: the context's; step: samples per row and column.
 */
export function readAloud(map, rows, columns, samples, step, length, most = 24) {
  const out = new Float32Array(length), size = 2 * step;
  const hann = Float32Array.from({ length: size }, (_, i) => Math.sin((Math.PI * (i + 0.5)) / size) ** 2);
  for (let r = 0; r < rows; r++) {
    const row = map.subarray(r * columns, (r + 1) * columns);
    const order = Array.from(row.keys()).sort((a, b) => row[b] - row[a]).slice(0, most);
    for (const c of order) {
      if (!(row[c] > 0)) break;
      const from = c * step - step / 2, to = r * step - step / 2;
      for (let i = 0; i < size; i++) {
        const a = Math.floor(from + i), b = Math.floor(to + i);
        if (a >= 0 && a < samples.length && b >= 0 && b < length) out[b] += row[c] * hann[i] * samples[a];
      }
    }
  }
  return out;
}

/** The context around the place that one row looks at most, faded where it looks less. */
export function stepAloud(row, samples, step, reach) {
  const best = row.reduce((found, value, c) => (value > row[found] ? c : found), 0), top = row[best] || 1;
  const first = Math.max(0, best - reach), last = Math.min(row.length, best + reach + 1);
  const from = first * step, to = Math.min(samples.length, last * step);
  const out = new Float32Array(Math.max(1, to - from));
  for (let i = 0; i < to - from; i++) {
    const at = Math.max(first, (from + i) / step - 0.5), c = Math.floor(at), next = row[Math.min(last - 1, c + 1)];
    out[i] = samples[from + i] * Math.sqrt((row[c] + (at - c) * (next - row[c])) / top);
  }
  return { samples: out, from };
}

/** Turn samples up or down so that they are as loud as others, at most `most` times. */
export function asLoudAs(samples, others, most = 30) {
  const power = (x) => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / Math.max(1, x.length));
  const peak = samples.reduce((top, value) => Math.max(top, Math.abs(value)), 0);
  const gain = Math.min(most, power(others) / (power(samples) || 1), peak > 0 ? 1 / peak : 1);
  return samples.map((value) => value * gain);
}
