// One clock for all stems: every source of every stem starts at one time of one audio context and
// loops between the same two samples, so that nothing can drift. Versions of a stem run along,
// silent, so that switching keeps the place. Works on any BaseAudioContext, an offline one too.

const FADE_S = 0.008; // of a change of level; shorter clicks
const LEAD_S = 0.04; // from the command to the first sample

/** A context at the audio's own rate, where the browser allows it. Call it from a click only. */
export function openContext(rate) {
  const Context = globalThis.AudioContext || globalThis.webkitAudioContext;
  if (!Context) throw new Error("This browser has no Web Audio: nothing can be played here.");
  try {
    return new Context({ sampleRate: rate, latencyHint: "interactive" });
  } catch {
    return new Context();
  }
}

/** Which stems are heard, and how loud: stems of { gain, mute, solo } -> linear gains. */
export function levels(stems) {
  const solo = stems.some((stem) => stem.solo);
  return stems.map((stem) => (stem.mute || (solo && !stem.solo) ? 0 : stem.gain));
}

/** dB -> factor; the lowest place of a fader is silence. */
export function fromDb(db, silence = -60) {
  return db <= silence ? 0 : 10 ** (db / 20);
}

export class Engine {
  /**
   * tracks: [{ name, versions: [{ name, clip }], version: 0, level: 1 }]; a clip is
   * { channels: [Float32Array], length, rate }. duration: seconds. makeContext: called at the first
   * play; leadS: 0 for an offline context. onEnd: called when the end was reached without a loop.
   */
  constructor({ tracks, duration, rate, makeContext = () => openContext(rate), leadS = LEAD_S, onEnd }) {
    Object.assign(this, { tracks, duration, rate, makeContext, leadS, onEnd });
    this.context = null;
    this.playing = false;
    this.offset = 0; // seconds, where the sources started (or where they will)
    this.startedAt = 0; // the same moment on the context's clock
    this.loop = null; // [from, to] in seconds
    this.master = 1;
    this.live = []; // running sources
    this.nodes = []; // per track: { level, versions: [{ gain, buffer }] }
    this.closed = false;
  }

  /** Make context, buffers and gains; again after `tracks` was replaced. */
  open() {
    if (this.closed) throw new Error("This player is closed.");
    this.context ||= this.makeContext();
    this.context.resume?.()?.catch?.(() => {});
    if (this.nodes.length) return;
    const context = this.context;
    this.out ||= context.createGain();
    this.out.gain.setValueAtTime(this.master, 0);
    this.out.connect(context.destination);
    this.nodes = this.tracks.map((track) => {
      const level = context.createGain();
      level.gain.setValueAtTime(track.level ?? 1, 0);
      level.connect(this.out);
      const versions = track.versions.map(({ clip }, i) => {
        const gain = context.createGain();
        gain.gain.setValueAtTime(i === (track.version || 0) ? 1 : 0, 0);
        gain.connect(level);
        return { gain, buffer: this.bufferOf(clip) };
      });
      return { level, versions };
    });
  }

  /** All buffers have one length, so that all loop alike; a shorter clip ends in silence. */
  bufferOf(clip) {
    const length = Math.max(1, Math.round(this.duration * clip.rate));
    const buffer = this.context.createBuffer(clip.channels.length, length, clip.rate);
    clip.channels.forEach((plane, c) => buffer.copyToChannel(plane.subarray(0, length), c));
    return buffer;
  }

  /** Seconds into the music at a time of the context, now by default. */
  position(at = this.context ? this.context.currentTime : 0) {
    if (!this.playing) return this.offset;
    let place = this.offset + Math.max(0, at - this.startedAt);
    if (this.loop && place >= this.loop[1] && this.offset < this.loop[1])
      place = this.loop[0] + ((place - this.loop[1]) % (this.loop[1] - this.loop[0]));
    return Math.min(place, this.duration);
  }

  play(from = this.offset) {
    if (this.playing) return;
    this.open();
    this.start(from >= this.duration - 1e-6 ? (this.loop ? this.loop[0] : 0) : from);
  }

  pause() {
    if (!this.playing) return;
    const place = this.position();
    this.halt();
    this.offset = place;
  }

  /** Go to a place, playing on if it was playing. */
  seek(place) {
    place = Math.max(0, Math.min(this.duration, place));
    if (this.playing) this.start(place);
    else this.offset = place;
  }

  /** Loop between two times, or null; they are moved to whole samples. Playing goes on. */
  setLoop(range) {
    const at = this.playing ? this.position(this.nextStart()) : this.offset;
    this.loop = null;
    if (range) {
      const [from, to] = range.map((s) => Math.round(Math.max(0, Math.min(this.duration, s)) * this.rate));
      if (to - from >= 0.02 * this.rate) this.loop = [from / this.rate, to / this.rate];
    }
    const outside = this.loop && (at < this.loop[0] || at >= this.loop[1]);
    const place = outside ? this.loop[0] : at;
    if (this.playing) this.start(place);
    else this.offset = place;
  }

  /** The gain of a track, after solo and mute. */
  setLevel(i, level) {
    this.tracks[i].level = level;
    if (this.nodes[i]) this.glide(this.nodes[i].level.gain, level);
  }

  /** Hear another version of a track from now on; the place stays. */
  setVersion(i, version) {
    this.tracks[i].version = version;
    this.nodes[i]?.versions.forEach(({ gain }, v) => this.glide(gain.gain, v === version ? 1 : 0));
  }

  setMaster(level) {
    this.master = level;
    if (this.out) this.glide(this.out.gain, level);
  }

  /** Put other tracks in place of the old ones; the place and the loop stay. */
  setTracks(tracks, duration = this.duration) {
    const playing = this.playing;
    if (playing) this.pause();
    this.nodes.forEach(({ level }) => level.disconnect());
    Object.assign(this, { tracks, duration, nodes: [] });
    this.offset = Math.min(this.offset, duration);
    if (this.loop && this.loop[1] > duration) this.loop = null;
    if (playing) this.play();
  }

  /** Stop, free every buffer and give the audio device back. */
  close() {
    this.halt();
    this.closed = true;
    this.nodes = [];
    this.tracks = [];
    const context = this.context;
    this.context = null;
    if (context?.close && context.state !== "closed") context.close().catch(() => {});
  }

  nextStart() {
    const frame = 1 / this.context.sampleRate;
    return Math.ceil((this.context.currentTime + this.leadS) / frame - 1e-6) * frame;
  }

  glide(param, value) {
    const now = this.context.currentTime;
    param.cancelScheduledValues(now);
    param.setValueAtTime(param.value, now);
    param.linearRampToValueAtTime(value, now + FADE_S);
  }

  start(place) {
    const when = this.nextStart();
    this.halt(when);
    this.playing = true;
    this.offset = Math.round(place * this.rate) / this.rate;
    this.startedAt = when;
    const loops = this.loop && this.offset < this.loop[1];
    for (const { versions } of this.nodes) {
      for (const { gain, buffer } of versions) {
        const source = this.context.createBufferSource();
        source.buffer = buffer;
        if (loops) [source.loop, source.loopStart, source.loopEnd] = [true, ...this.loop];
        source.connect(gain);
        source.start(when, this.offset);
        this.live.push(source);
      }
    }
    // Only when the last has ended: to stop the others while they render their last block of 128
    // samples would silence it.
    let left = this.live.length;
    for (const source of this.live) source.onended = () => --left || this.ended();
  }

  ended() {
    this.halt();
    this.offset = this.duration;
    this.onEnd?.();
  }

  halt(when) {
    for (const source of this.live) {
      source.onended = null;
      if (when === undefined) {
        source.stop();
        source.disconnect();
      } else {
        source.onended = () => source.disconnect();
        source.stop(when);
      }
    }
    this.live = [];
    this.playing = false;
  }
}

// A busy Chromium may leave a source out of the first block, of 128 samples: these are cut off.
const LEAD = 4096;

/** The same engine on an offline context: the planes of what is heard, sample by sample. */
export async function renderOffline(tracks, duration, rate, master) {
  const n = Math.max(...tracks.flatMap((t) => t.versions.map((v) => v.clip.channels.length)));
  const context = new OfflineAudioContext(n, LEAD + Math.round(duration * rate), rate);
  const engine = new Engine({ tracks, duration, rate, makeContext: () => context, leadS: LEAD / rate });
  engine.master = master;
  engine.play(0);
  const buffer = await context.startRendering();
  return Array.from({ length: n }, (_, c) => buffer.getChannelData(c).subarray(LEAD));
}
