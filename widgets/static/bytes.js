// Bytes from the kernel come as DataView (JupyterLab), Uint8Array (Colab) or ArrayBuffer.

/** Number of bytes; 0 for nothing at all. */
export function byteLength(value) {
  return value && typeof value.byteLength === "number" ? value.byteLength : 0;
}

/** Any of the three as Uint8Array over the same memory; base64 text is decoded. */
export function toBytes(value) {
  if (typeof value === "string") return Uint8Array.from(atob(value), (c) => c.charCodeAt(0));
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  return new Uint8Array(0);
}

/** Little-endian int16 samples from `offset` bytes on, as floats in [-1, 1). */
export function toFloats(value, offset, count) {
  const bytes = toBytes(value);
  if (offset + 2 * count > bytes.byteLength) throw new Error("the audio came cut short");
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, 2 * count);
  const floats = new Float32Array(count);
  for (let i = 0; i < count; i++) floats[i] = view.getInt16(2 * i, true) / 32768;
  return floats;
}

/** Floats in [-1, 1] as the bytes of a 16-bit WAV file; channels of equal length. */
export function wavFile(channels, rate) {
  const n = channels.length;
  const length = n ? channels[0].length : 0;
  const view = new DataView(new ArrayBuffer(44 + 2 * n * length));
  const text = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * n * length, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, n, true);
  view.setUint32(24, rate, true); view.setUint32(28, 2 * n * rate, true);
  view.setUint16(32, 2 * n, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * n * length, true);
  for (let i = 0, at = 44; i < length; i++)
    for (let c = 0; c < n; c++, at += 2)
      view.setInt16(at, Math.max(-32768, Math.min(32767, Math.round(channels[c][i] * 32768))), true);
  return new Uint8Array(view.buffer);
}
