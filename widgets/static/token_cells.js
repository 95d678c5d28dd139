// Which token stands where: the delayed sequence, its frames, and every step of the delay between.
import { toBytes } from "./bytes.js";

export class Cells {
  /** text: base64 of little-endian int16: sequence [K * S], positions [S], attention mask [S], loss
   * mask [K * S]. sizes: n_q, steps, card, width, pad, frame_rate, heard (frames with sound). */
  constructor(text, sizes) {
    const bytes = toBytes(text);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let at = 0;
    const take = (n) => Int16Array.from({ length: n }, () => view.getInt16(2 * at++, true));
    Object.assign(this, sizes, { k: sizes.n_q, s: sizes.steps });
    this.sequence = take(this.k * this.s);
    this.positions = take(this.s);
    this.attention = take(this.s);
    this.loss = take(this.k * this.s);
    this.frames = this.s - this.k; // of padding, context, token and target
  }

  /** Columns while `delay` steps of the delay are shown. */
  columns(delay) {
    return this.frames + delay;
  }

  /** The frame that codebook k holds in a column: below 0 or from `frames` on there is none. */
  frame(k, column, delay) {
    return column - Math.min(k + 1, delay);
  }

  /** The column in which codebook k holds a frame. */
  column(k, frame, delay) {
    return frame + Math.min(k + 1, delay);
  }

  /** { id, kind, part, frame, step, masked, loss } of one place. */
  at(k, column, delay) {
    const frame = this.frame(k, column, delay);
    const inside = frame >= 0 && frame < this.frames;
    const step = inside ? frame + k + 1 : delay === this.k ? column : null;
    const id = inside ? this.sequence[k * this.s + step] : this.card;
    const kind = id === this.card ? "special" : id === this.card + 1 ? "token" : "code";
    return {
      id, kind, frame, step, part: inside ? this.part(frame) : "fill",
      masked: step !== null && !this.attention[step],
      loss: inside && Boolean(this.loss[k * this.s + step]),
    };
  }

  part(frame) {
    if (frame < this.pad) return "padding";
    if (frame < this.width - 1) return "context";
    return frame < this.width ? "token" : "target";
  }

  /** One sentence on a place, for eyes and ears. */
  describe(k, column, delay) {
    const cell = this.at(k, column, delay);
    const words = [delay === this.k ? `step ${column}` : `column ${column}`, `codebook ${k}`];
    const seconds = (frames) => `${(frames / this.frame_rate).toFixed(2)} s`;
    if (cell.kind === "special") words.push(`special token ${this.card}, no code`);
    else if (cell.kind === "token") words.push(`context token ${this.card + 1}`);
    else words.push(`code ${cell.id}`);
    if (cell.part === "context") words.push(`frame ${cell.frame - this.pad} of the context, ${seconds(cell.frame - this.pad)}`);
    if (cell.part === "target") words.push(`frame ${cell.frame - this.width} of the target, ${seconds(cell.frame - this.width)}`);
    if (cell.part === "padding") words.push("padding of a batch, or a dropped context");
    if (delay === this.k) {
      words.push(`position ${this.positions[column]}`);
      words.push(cell.masked ? "hidden from all other steps" : "other steps look at it");
    }
    if (cell.loss) words.push("counts in the loss");
    return words.join(" · ");
  }

  /** What one sees at a step of the delay. */
  stage(delay) {
    const last = this.k - 1;
    if (delay === 0) return "Codes: one column is one frame, its codebooks refine one another.";
    if (delay === 1) return "All moved right by one: there is a first step to begin from, of special tokens.";
    if (delay < this.k) return `Codebooks ${delay - 1} to ${last} moved right once more.`;
    return `The sequence of the model: codebook k is k + 1 steps late, so codebook ${last} can hear the others.`;
  }

  /** Ranges [from, to, name] of columns in codebook 0. */
  parts(delay) {
    const shift = Math.min(1, delay), at = (frame) => frame + shift;
    return [
      [at(0), at(this.pad), "padding"], [at(this.pad), at(this.width - 1), "context"],
      [at(this.pad < this.width ? this.width - 1 : this.width), at(this.width), "token"],
      [at(this.width), at(this.frames), "target"],
    ].filter(([from, to]) => to > from);
  }
}

/** A window of `wide` columns that shows a column, within 0 .. total. */
export function windowOf(column, wide, total) {
  wide = Math.max(1, Math.min(total, Math.round(wide)));
  const from = Math.max(0, Math.min(total - wide, Math.round(column - wide / 2)));
  return [from, from + wide];
}

/** Energy of what was lost against the whole, in dB; -Infinity where nothing was. */
export function lostDb(whole, part) {
  let lost = 0, all = 0;
  const n = Math.min(whole.length, part.length);
  for (let i = 0; i < n; i++) {
    lost += (whole[i] - part[i]) ** 2;
    all += whole[i] ** 2;
  }
  return all > 0 ? 10 * Math.log10(lost / all) : -Infinity;
}
