import { lostDb } from "./token_cells.js";
import { Drawing } from "./token_drawing.js";
import { clock } from "./wave.js";
import { toFloats } from "./bytes.js";

// What the token grid lets one hear: some codebooks, or what they leave out; and where it plays.
export class Sounding extends Drawing {
  all() {
    return Array.from({ length: this.cells.k }, (_, k) => k);
  }

  tracks() {
    const names = [...this.sounds.keys()];
    const version = Math.max(0, names.indexOf(this.heard ?? this.all().join(",")));
    return [{ name: "target", version, versions: names.map((name) => ({ name, clip: this.sounds.get(name) })) }];
  }

  flipLost() {
    this.ui.set({ lost: !this.ui.get("lost") });
  }

  hear() {
    const chosen = this.ui.get("codebooks"), name = chosen.join(","), lost = this.ui.get("lost");
    this.lostButton.setAttribute("aria-pressed", lost);
    this.bookButtons.forEach((node, k) => node.setAttribute("aria-pressed", chosen.includes(k)));
    this.redraw();
    if (!this.sounds.has(name)) {
      this.words.textContent = "Python decodes these codebooks …";
      this.ui.send("decode", { codebooks: chosen });
      clearTimeout(this.waiting);
      this.waiting = setTimeout(() => this.ui.gone || this.ui.say(
        "Python has not answered yet: it may be busy. The first codebooks, without a gap, are heard at once."), 8000);
      return;
    }
    clearTimeout(this.waiting);
    const whole = this.sounds.get(this.all().join(",")), part = this.sounds.get(name).channels[0];
    this.heard = lost ? `lost ${name}` : name;
    if (!this.sounds.has(this.heard))
      this.sounds.set(this.heard, { ...whole, channels: [whole.channels[0].map((x, i) => x - part[i])] });
    const version = [...this.sounds.keys()].indexOf(this.heard);
    if (this.engine.tracks[0].versions[version]?.name === this.heard) this.engine.setVersion(0, version);
    else this.engine.setTracks(this.tracks());
    const db = lostDb(whole.channels[0], part);
    const off = this.all().filter((k) => !chosen.includes(k));
    this.words.textContent = (!off.length ? "All codebooks are heard."
      : !chosen.length ? `All are off${lost ? "" : ": silence"}.`
      : `Off: codebook ${off.join(", ")}. What is lost has ${db.toFixed(1)} dB of the whole sound's energy.`)
      + (lost ? ` You hear what is lost${off.length ? "" : ": nothing"}.` : "");
  }

  arrived(name, buffer) {
    const whole = this.sounds.get(this.all().join(","));
    const samples = new Float32Array(whole.length);
    samples.set(toFloats(buffer, 0, Math.floor(buffer.byteLength / 2)).subarray(0, whole.length));
    this.sounds.set(name, { channels: [samples], length: whole.length, rate: whole.rate });
    if (this.ui.get("codebooks").join(",") === name) {
      this.ui.say("");
      this.hear();
    }
  }

  toggle() {
    if (!this.engine) return;
    if (this.engine.playing) {
      this.engine.pause();
      return this.stopped();
    }
    this.engine.play();
    this.playButton.textContent = "Pause";
    this.ui.set({ playing: true });
    this.tick();
  }

  stopped() {
    this.playButton.textContent = "Play";
    this.ui.set({ playing: false });
    this.place();
  }

  // Play from the chosen frame of the target.
  fromCursor() {
    if (!this.engine) return;
    const [k, column] = this.cursor();
    const at = (this.cells.frame(k, column, this.delay()) - this.cells.width) / this.cells.frame_rate;
    this.engine.seek(Math.max(0, at));
    if (!this.engine.playing) this.toggle();
  }

  tick() {
    cancelAnimationFrame(this.ticking);
    if (this.ui.gone || !this.engine.playing) return;
    this.place(true);
    this.ticking = requestAnimationFrame(() => this.tick());
  }

  place(follow = false) {
    if (!this.engine) return;
    const at = this.engine.position(), delay = this.delay();
    const column = this.cells.column(0, this.cells.width + at * this.cells.frame_rate, delay);
    if (follow && (column < this.view[0] || column >= this.view[1])) this.look(column + this.wide / 2 - 1, this.wide);
    const [from, to] = this.view, inside = column >= from && column <= to && at > 0;
    this.head.style.display = inside ? "block" : "none";
    this.head.style.transform = `translateX(${((column - from) / (to - from)) * this.canvas.clientWidth}px)`;
    this.time.textContent = `${clock(at)} / ${clock(this.duration)}`;
  }
}
