// What the page asks of the server. Addresses are relative, so that it works behind any prefix of a proxy.

import { Busy, TokenNeeded } from "./queue.js";

const TOKEN = "effnet-token";
const PATIENCE_MS = 120_000;
const TOP = 5;

/** An answer that another try may change: no connection, no answer in time, an error of the server. */
export class Passing extends Error {}

export const savedToken = () => sessionStorage.getItem(TOKEN);
export const saveToken = (token) => sessionStorage.setItem(TOKEN, token);

/** @returns {Promise<{max_bytes: number, max_pixels: number, max_images: number, needs_token: boolean}>} */
export const limits = () => ask("v1/limits");

/** @returns {Promise<object[]>} */
export const models = async () => (await ask("v1/models")).models;

/**
 * Classify one image.
 *
 * @param {File} file
 * @param {{name: string, model: string, cam: boolean, signal: AbortSignal}} options
 * @returns {Promise<{classes: {name: string, probability: number}[], cam?: string}>}
 * @throws {Error} With a sentence for people.
 */
export async function predict(file, { name, model, cam, signal }) {
  const form = new FormData();
  form.append("images", file, name);
  form.append("model", model);
  form.append("top", TOP);
  form.append("cam", cam);
  const answer = await ask("v1/predict", { method: "POST", body: form, signal });
  const result = answer.results[0];
  if (result.error) throw new Error(result.error);
  return result;
}

async function ask(address, { signal, ...options } = {}) {
  const token = savedToken();
  const patience = AbortSignal.timeout(PATIENCE_MS);
  let response, body;
  try {
    response = await fetch(address, {
      ...options,
      headers: token ? { Authorization: `Bearer ${token}` } : {},
      signal: signal ? AbortSignal.any([signal, patience]) : patience,
    });
    body = await response.text();
  } catch (problem) {
    if (signal?.aborted) throw problem;
    if (patience.aborted) throw new Passing(`The server gave no answer within ${PATIENCE_MS / 1000} s.`);
    throw new Passing("The server cannot be reached. It may have been stopped, or the connection is lost.");
  }
  const answer = parsed(body);
  const sentence = answer?.results?.[0]?.error ?? answer?.error;
  if (response.ok && answer) return answer;
  if (response.status === 401) throw new TokenNeeded(sentence);
  if (response.status === 429 || response.status === 503) throw new Busy(wait(response), sentence ?? "The server is busy.");
  if (response.status >= 500) throw new Passing(sentence ?? `The server failed (status ${response.status}).`);
  throw new Error(sentence ?? `The server refused this (status ${response.status}).`);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // A page of a proxy, say.
  }
}

/** Seconds to wait: `Retry-After` is a number of them or a date. */
function wait(response) {
  const header = response.headers.get("Retry-After") ?? "1";
  const seconds = /^\d+(\.\d+)?$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Math.min(Math.max(seconds || 1, 0.2), 60);
}
