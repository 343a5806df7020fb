// The page: what is chosen, which images there are, and which answers are still to come.

import { offerCamera } from "./camera.js";
import { agreement, fillCard, makeCard } from "./card.js";
import { answerRows, toCsv } from "./csv.js";
import { listen } from "./intake.js";
import { bytes, Item } from "./items.js";
import { Busy, Queue, TokenNeeded } from "./queue.js";
import * as server from "./server.js";

const PARALLEL = 4;
const FEW_CLASSES = 12; // So many are named in the first line.
const NEWS_EVERY_MS = 700;

const at = (id) => document.getElementById(id);
const queue = new Queue(PARALLEL, { busy: showWait, tokenNeeded: askForToken });
/** @type {Item[]} The newest images first, as their cards. */
let items = [];
const cards = new Map();
const early = []; // Files that came before the page was ready.
let limits, models;
let busyUntil = 0;
let announced = [];
let announcing = 0;

// ---------------------------------------------------------------------------------------------- start

async function start() {
  try {
    limits = await server.limits();
    if (limits.needs_token && !server.savedToken()) return askForToken();
    models = await server.models();
  } catch (problem) {
    if (problem instanceof TokenNeeded) return askForToken();
    if (problem instanceof Busy) setTimeout(start, 1000 * problem.seconds);
    return showProblem(problem.message, "Try again", start);
  }
  hideProblem();
  at("model").replaceChildren(...models.map(({ name }) => new Option(name)));
  at("other").replaceChildren(new Option("nothing", ""), ...models.map(({ name }) => new Option(name)));
  for (const part of document.querySelectorAll(".of-several")) part.hidden = models.length < 2;
  at("limits").textContent = `Pasting works, too. Up to ${bytes(limits.max_bytes)} each, sent to this server only.`;
  for (const id of ["choices", "intake"]) at(id).hidden = false;
  describe();
  queue.release();
  if (early.length) take(early.splice(0));
}

/** The chosen models, one or two. */
function chosen() {
  const names = new Set([at("model").value, at("other").value]);
  return [...names].filter(Boolean).map((name) => models.find((model) => model.name === name));
}

function describe() {
  const [{ network, image_size: size, classes }] = chosen();
  const count = classes.length.toLocaleString("en");
  const few = classes.length <= FEW_CLASSES;
  at("about").textContent = `${network} at ${size} px names one of ${count} classes, whatever the picture shows`
    + (few ? `: ${classes.join(", ")}.` : ".");
  at("classes-box").hidden = few;
  if (!few) {
    at("classes").replaceChildren(...classes.map((name) => Object.assign(document.createElement("li"), { textContent: name })));
  }
}

// ------------------------------------------------------------------------------------------- images

function take(files) {
  if (!models) return early.push(...files);
  hideProblem();
  const fresh = files.map((file) => new Item(file, limits));
  for (const item of fresh) {
    cards.set(item, makeCard(item, { remove: () => remove(item), retry: () => retry([item]) }));
    item.isRead.then(() => update(item));
    ask(item);
  }
  items = [...fresh, ...items];
  at("cards").prepend(...fresh.map((item) => cards.get(item)));
  fresh.forEach(update);
  const refused = fresh.filter((item) => item.refusal);
  if (refused.length) announce(`${refused[0].name}: ${refused[0].refusal}`);
}

function remove(item) {
  const index = items.indexOf(item);
  items.splice(index, 1);
  forget(item);
  const next = items[index] ?? items[index - 1];
  (next ? cards.get(next).querySelector(".remove") : at("choose")).focus();
  showTally();
}

function clear() {
  items.splice(0).forEach(forget);
  at("choose").focus();
  showTally();
}

function forget(item) {
  item.leave();
  cards.get(item).remove();
  cards.delete(item);
}

/** Ask for the answers that are chosen and not there. */
function ask(item) {
  const wantsHeat = at("heat-maps").checked;
  for (const model of chosen()) {
    const known = item.answers.get(model.name);
    if (item.refusal || (known && (known.state !== "done" || known.askedHeat || !wantsHeat))) continue;
    const waiting = { ...known, state: "waiting", askedHeat: wantsHeat };
    item.answers.set(model.name, waiting);
    // An answer that nobody waits for any more is not put in the place of another.
    const isWanted = () => !item.isGone && item.answers.get(model.name) === waiting;
    const settle = (answer) => {
      if (!isWanted()) return;
      item.answers.set(model.name, { askedHeat: wantsHeat, ...answer });
      ask(item); // Heat maps may have been chosen meanwhile.
      update(item);
      if (stateOf(item) !== "waiting") announce(sentence(item));
    };
    queue.add({
      isWanted,
      run: async () => {
        await item.isRead;
        if (item.refusal) return settle({ state: "failed", error: item.refusal });
        const options = { name: item.name, model: model.name, cam: wantsHeat && model.cam !== false, signal: item.signal };
        const { classes, cam } = await server.predict(item.file, options);
        settle({ state: "done", classes, cam });
      },
      failed: (problem) => settle({ state: "failed", error: problem.message, isPassing: isPassing(problem) }),
    });
  }
}

const isPassing = (problem) => problem instanceof server.Passing || problem instanceof Busy;

function retry(some) {
  for (const item of some) {
    for (const [name, answer] of item.answers) if (answer.isPassing) item.answers.delete(name);
    ask(item);
    update(item);
  }
}

/** Ask and show anew after another choice. */
function choose() {
  const names = chosen().map((model) => model.name);
  for (const option of at("other").options) option.disabled = option.value === at("model").value;
  for (const item of items) {
    for (const [name, answer] of item.answers) {
      if (answer.state === "waiting" && !names.includes(name)) item.answers.delete(name);
    }
    ask(item);
    update(item);
  }
  describe();
  showTally();
}

// ---------------------------------------------------------------------------------------------- show

/** @returns {"waiting" | "done" | "failed"} */
function stateOf(item) {
  if (item.refusal) return "failed";
  const states = chosen().map((model) => item.answers.get(model.name)?.state);
  return ["waiting", "failed"].find((state) => states.includes(state)) ?? "done";
}

function update(item) {
  if (item.isGone) return;
  fillCard(cards.get(item), item, chosen(), at("heat-maps").checked);
  showTally();
}

function showTally() {
  const states = items.map(stateOf);
  const count = (state) => states.filter((other) => other === state).length;
  const waiting = count("waiting");
  const said = items.map((item) => agreement(item, chosen())).filter((agree) => agree !== undefined);
  const parts = [items.length === 1 ? "1 image" : `${items.length.toLocaleString("en")} images`];
  if (waiting) parts.push(`${waiting} to go${Date.now() < busyUntil ? " (the server is busy)" : ""}`);
  if (count("failed")) parts.push(`${count("failed")} without an answer`);
  if (said.length) parts.push(`the same class for ${said.filter(Boolean).length} of ${said.length}`);
  at("tally").textContent = parts.join(", ");
  at("results").hidden = items.length === 0;
  document.body.classList.toggle("has-images", items.length > 0);
  at("progress").hidden = waiting === 0;
  at("progress").max = items.length;
  at("progress").value = items.length - waiting;
  at("again").hidden = !items.some((item) => [...item.answers.values()].some((answer) => answer.isPassing));
  at("differing-box").hidden = said.length === 0;
  at("cards").classList.toggle("only-differing", at("differing").checked && said.length > 0);
}

function sentence(item) {
  const parts = chosen().map(({ name }) => {
    const { error, classes } = item.answers.get(name) ?? {};
    return error ?? (classes ? `${classes[0].name}, ${Math.round(100 * classes[0].probability)} percent` : "");
  });
  return `${item.name}: ${parts.join("; ")}`;
}

/** Tell screen readers: one sentence as it is, many as their number. */
function announce(text) {
  announced.push(text);
  announcing ||= setTimeout(() => {
    at("news").textContent = announced.length === 1 ? text : `${announced.length} images answered; ${at("tally").textContent}`;
    announced = [];
    announcing = 0;
  }, NEWS_EVERY_MS);
}

function showProblem(text, action, act) {
  at("problem-text").textContent = text;
  at("problem-button").textContent = action ?? "";
  at("problem-button").hidden = !action;
  at("problem-button").onclick = act;
  at("problem").hidden = false;
}

function hideProblem() {
  at("problem").hidden = true;
}

/** Say until then why nothing goes on. */
function showWait(seconds) {
  busyUntil = Date.now() + 1000 * seconds;
  setTimeout(showTally, 1000 * seconds);
  showTally();
}

// --------------------------------------------------------------------------------------- token, CSV

function askForToken() {
  if (server.savedToken()) at("token-note").textContent = "The server does not know that token. Look for a missing or extra character.";
  at("token").value = "";
  at("token-dialog").returnValue = "";
  at("token-dialog").showModal();
}

function needToken() {
  showProblem("This server answers only with its token.", "Enter the token", askForToken);
}

function download() {
  const rows = items.flatMap((item) => {
    const agree = agreement(item, chosen());
    return chosen().map(({ name }) => {
      const { classes, error } = item.answers.get(name) ?? {};
      const missing = classes ? undefined : "not answered yet";
      return { image: item.name, model: name, classes, agree, error: item.refusal ?? error ?? missing };
    });
  });
  const url = URL.createObjectURL(new Blob([toCsv(answerRows(rows))], { type: "text/csv" }));
  Object.assign(document.createElement("a"), { href: url, download: "predictions.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

listen(take, (text) => showProblem(text, "Close", hideProblem));
offerCamera(take);
at("model").addEventListener("change", choose);
at("other").addEventListener("change", choose);
at("heat-maps").addEventListener("change", choose);
at("differing").addEventListener("change", showTally);
at("again").addEventListener("click", () => retry(items));
at("download").addEventListener("click", download);
at("clear").addEventListener("click", clear);
at("choices").addEventListener("submit", (event) => event.preventDefault());
at("token-form").addEventListener("submit", () => {
  server.saveToken(at("token").value.trim());
  start();
});
at("token-cancel").addEventListener("click", () => at("token-dialog").close());
at("token-dialog").addEventListener("close", () => {
  if (!at("token-dialog").returnValue) needToken();
});
start();
