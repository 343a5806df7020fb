// One image of the page: its file, a small copy to show, what is wrong with it, and the answers to it.

import { Queue } from "./queue.js";

const COPY_SIZE = 720; // Pixels of the longer side; whole photos would fill the memory of a phone.

const reading = new Queue(2);

/**
 * @typedef {object} Answer
 * @property {"waiting" | "done" | "failed"} state
 * @property {{name: string, probability: number}[]} [classes] Most probable first.
 * @property {string} [cam] The heat map over what the network saw, as a data URI.
 * @property {boolean} [hasAskedCam]
 * @property {string} [error]
 * @property {boolean} [isPassing] Whether another try may help.
 */

export class Item {
  /** @type {Map<string, Answer>} By name of the model. */
  answers = new Map();
  /** @type {{url: string, width: number, height: number} | undefined} The small copy; its photo's size. */
  picture;
  /** @type {string | undefined} Why it is not sent at all. */
  refusal;
  #leaving = new AbortController();

  /**
   * @param {File} file
   * @param {{max_bytes: number, max_pixels: number}} limits
   */
  constructor(file, limits) {
    this.file = file;
    this.name = file.name || "unnamed";
    this.refusal = refusalOf(file, limits);
    /** Settled when the small copy is there, or it is known that there will be none. */
    this.isRead = this.refusal ? Promise.resolve() : this.#read(limits);
  }

  get signal() {
    return this.#leaving.signal;
  }

  get isGone() {
    return this.signal.aborted;
  }

  /** Stop what is asked for it and free its memory. */
  leave() {
    this.#leaving.abort();
    if (this.picture) URL.revokeObjectURL(this.picture.url);
  }

  #read(limits) {
    return new Promise((resolve) => {
      reading.add({
        isWanted: () => !this.isGone,
        run: async () => {
          const picture = await smallCopy(this.file);
          if (this.isGone) URL.revokeObjectURL(picture.url);
          else this.picture = picture;
          if (picture.width * picture.height > limits.max_pixels) {
            this.refusal = `This image has ${megapixels(picture.width * picture.height, Math.ceil)}; `
              + `this server takes at most ${megapixels(limits.max_pixels, Math.floor)}.`;
          }
          resolve();
        },
        failed: () => resolve(), // The server may know a format that this browser does not.
      });
    });
  }
}

function refusalOf(file, limits) {
  if (file.size === 0) return "This file is empty.";
  if (file.type && !file.type.startsWith("image/")) return `This is not an image, but ${file.type}.`;
  if (file.size > limits.max_bytes) {
    return `This file has ${written(file.size)}; this server takes at most ${bytes(limits.max_bytes)}.`;
  }
  return undefined;
}

async function smallCopy(file) {
  const bitmap = await createImageBitmap(file);
  const { width, height } = bitmap;
  const scale = Math.min(1, COPY_SIZE / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/webp", 0.9));
  return { url: URL.createObjectURL(blob), width, height };
}

/** What is allowed, as "32 MB", rounded down: a megabyte has 1024 kilobytes, as where the limit is set. */
export const bytes = (count) => written(count, Math.floor);

/** A number of bytes, rounded up where it is above a limit. */
function written(count, round = Math.ceil) {
  const [unit, name] = count < 2 ** 20 ? [2 ** 10, "kB"] : [2 ** 20, "MB"];
  return `${round((10 * count) / unit) / 10} ${name}`;
}

const megapixels = (count, round) => `${round(count / 1e5) / 10} megapixels`;
