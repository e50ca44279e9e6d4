// What a reader takes away: files that are saved, and text that is copied.

/** Offer a file for download. */
export function save(blob, name) {
  const link = Object.assign(document.createElement("a"), {href: URL.createObjectURL(blob), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A file for np.load: version 1 of NumPy's format. */
export function npy(values, shape) {
  const about = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")}), }`;
  const header = `${about.padEnd(Math.ceil((about.length + 11) / 64) * 64 - 11)}\n`;
  const magic = new Uint8Array([0x93, 78, 85, 77, 80, 89, 1, 0, header.length % 256, header.length >> 8]);
  return new Blob([magic, header, values]);
}

/** Copy a text, and say on the button whether that worked. */
export async function copy(text, button) {
  const before = button.textContent;
  const copied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
  button.textContent = copied ? "Copied" : "The browser does not allow it";
  setTimeout(() => { button.textContent = before; }, 1500);
}
