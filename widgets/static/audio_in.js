// Sound from the reader: a file that was chosen or dropped, or the microphone. It becomes mono at
// one rate here, so that only the part that is used travels to the kernel.

export const MAX_FILE_BYTES = 200e6;
export const MAX_SENT_BYTES = 8e6; // of a file that only Python may be able to read
const MAX_RECORD_S = 60;

/** The mean of all channels. */
export function mono(channels) {
  if (channels.length === 1) return channels[0];
  const sum = new Float32Array(channels[0].length);
  for (const plane of channels) for (let i = 0; i < sum.length; i++) sum[i] += plane[i] / channels.length;
  return sum;
}

/** Floats in [-1, 1] as int16. */
export function toInt16(floats) {
  return Int16Array.from(floats, (x) => Math.max(-32768, Math.min(32767, Math.round(x * 32768))));
}

/**
 * A file as { samples, rate }, or { bytes } if the browser cannot read it and Python may try. An
 * OfflineAudioContext decodes and resamples; it makes no sound and needs no click.
 */
export async function readFile(file, rate) {
  if (!file.size) throw new Error(`${file.name} is empty (0 bytes). Choose a sound file.`);
  if (file.size > MAX_FILE_BYTES) throw new Error(`${file.name} has ${Math.round(file.size / 1e6)} MB; at most 200 can be read.`);
  const bytes = await file.arrayBuffer();
  try {
    const decoder = new OfflineAudioContext(1, 1, rate);
    const audio = await decoder.decodeAudioData(bytes.slice(0));
    const channels = Array.from({ length: audio.numberOfChannels }, (_, c) => audio.getChannelData(c));
    return { samples: mono(channels), rate: audio.sampleRate };
  } catch {
    if (bytes.byteLength > MAX_SENT_BYTES)
      throw new Error(`This browser cannot read ${file.name} as sound. Choose WAV, FLAC, OGG or MP3.`);
    return { bytes };
  }
}

/** Why the microphone cannot be used, as a sentence. */
export function microphoneFault(error) {
  const known = {
    NotFoundError: "No microphone was found. Plug one in, or choose a file.",
    NotAllowedError: "The browser may not use the microphone. Allow it for this page, or choose a file.",
    NotReadableError: "Another program uses the microphone. Close it, or choose a file.",
  };
  return known[error?.name] || `The microphone cannot be used (${error?.message || error}). Choose a file.`;
}

/** Start recording: { stop, done }, where `done` is a promise of a Blob; `tick` gets seconds. */
export async function record(tick, devices = globalThis.navigator?.mediaDevices) {
  if (!devices?.getUserMedia || !globalThis.MediaRecorder)
    throw new Error("This page may not record: a browser allows it on https and on localhost only. Choose a file.");
  let stream;
  try {
    stream = await devices.getUserMedia({ audio: true });
  } catch (error) {
    throw new Error(microphoneFault(error));
  }
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  const started = performance.now();
  let seconds = 0;
  const timer = setInterval(() => {
    seconds = (performance.now() - started) / 1000;
    tick(seconds);
    if (seconds >= MAX_RECORD_S) stop();
  }, 200);
  const stop = () => recorder.state !== "inactive" && recorder.stop();
  const done = new Promise((resolve, reject) => {
    recorder.ondataavailable = (event) => pieces.push(event.data);
    recorder.onerror = (event) => reject(new Error(microphoneFault(event.error)));
    recorder.onstop = () => resolve(new Blob(pieces, { type: recorder.mimeType }));
  }).finally(() => {
    clearInterval(timer);
    stream.getTracks().forEach((track) => track.stop());
  });
  recorder.start(500);
  return { stop, done };
}
