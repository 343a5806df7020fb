// The card of one image: the photo, and for each model its heat map and bars. Names are text, never HTML.

const copyOf = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

/**
 * @param {import("./items.js").Item} item
 * @param {{remove: () => void, retry: () => void}} actions
 * @returns {HTMLElement}
 */
export function makeCard(item, { remove, retry }) {
  const card = copyOf("card");
  const title = card.querySelector("h3");
  title.textContent = item.name;
  const button = card.querySelector(".remove");
  button.setAttribute("aria-label", `Remove ${item.name}`);
  button.addEventListener("click", remove);
  const slider = card.querySelector(".heat input");
  slider.setAttribute("aria-label", `Heat map of ${item.name}`);
  slider.addEventListener("input", () => card.style.setProperty("--heat", slider.value / 100));
  card.style.setProperty("--heat", slider.value / 100);
  card.addEventListener("click", (event) => {
    if (!event.target.matches(".retry")) return;
    title.focus(); // The button goes away.
    retry();
  });
  return card;
}

/**
 * Show what is known about an item.
 *
 * @param {HTMLElement} card
 * @param {import("./items.js").Item} item
 * @param {object[]} models Those that are chosen, one or two.
 * @param {boolean} showsHeat
 */
export function fillCard(card, item, models, showsHeat) {
  const agree = agreement(item, models);
  card.classList.toggle("differs", agree === false);
  const verdict = card.querySelector(".verdict");
  verdict.hidden = agree === undefined;
  verdict.textContent = agree ? "They agree" : "They differ";
  const asked = item.refusal ? [models[0]] : models;
  card.querySelector(".panels").replaceChildren(...asked.map((model) => panel(item, model, models.length > 1, showsHeat)));
  card.querySelector(".heat").hidden = !card.querySelector(".heat-map:not([hidden])");
  card.setAttribute("aria-busy", String(asked.some((model) => item.answers.get(model.name)?.state === "waiting")));
}

/** Whether two models name the same class; undefined where fewer have answered. */
export function agreement(item, models) {
  const best = models.map((model) => item.answers.get(model.name)?.classes?.[0]?.name);
  return best.length < 2 || best.includes(undefined) ? undefined : best[0] === best[1];
}

function panel(item, model, isCompared, showsHeat) {
  const element = copyOf("panel");
  const answer = item.answers.get(model.name);
  const title = element.querySelector("h4");
  title.textContent = model.name;
  title.hidden = !isCompared || Boolean(item.refusal);
  if (item.picture) {
    showPhoto(element, item);
    if (showsHeat && answer?.cam) showHeat(element, item, model, answer);
  }
  const error = item.refusal ?? answer?.error;
  if (error) {
    element.querySelector(".error").hidden = false;
    element.querySelector(".error").textContent = error;
    element.querySelector(".retry").hidden = item.refusal !== undefined || !answer.isPassing;
  } else if (answer?.classes) {
    showClasses(element, answer.classes);
  } else {
    element.querySelector(".waiting").hidden = false;
  }
  return element;
}

function showPhoto(element, item) {
  const { url, width, height } = item.picture;
  const picture = element.querySelector(".picture");
  picture.src = url;
  picture.alt = `Photo ${item.name}`;
  const photo = element.querySelector(".photo");
  photo.style.aspectRatio = `${width} / ${height}`;
  photo.classList.toggle("wide", width / height > 4 / 3); // As the frame of page.css.
  element.querySelector(".frame").hidden = false;
}

/** Lay the heat map over the part of the photo that the network saw, and shade the rest. */
function showHeat(element, item, model, answer) {
  const { width, height } = item.picture;
  const side = (model.crop_fraction ?? 1) * Math.min(width, height);
  const [seenWidth, seenHeight] = model.crop_mode === "squash" ? [width, height] : [side, side];
  const map = element.querySelector(".heat-map");
  map.src = answer.cam;
  map.alt = `Where ${model.name} looked for ${answer.classes[0].name}`;
  const box = [(1 - seenWidth / width) / 2, (1 - seenHeight / height) / 2, seenWidth / width, seenHeight / height];
  const unseen = element.querySelector(".unseen-part");
  for (const part of [map, unseen]) {
    ["left", "top", "width", "height"].forEach((name, index) => (part.style[name] = `${100 * box[index]}%`));
    part.hidden = false;
  }
}

function showClasses(element, classes) {
  element.querySelector(".bars").append(
    ...classes.map(({ name, probability }) => {
      const bar = copyOf("bar");
      bar.querySelector(".class").textContent = name;
      bar.querySelector(".percent").textContent = percent(probability);
      bar.querySelector(".fill").style.width = `${100 * probability}%`;
      return bar;
    }),
  );
}

/** @returns {string} Never "100.0 %" or "0.0 %" of what is neither. */
export function percent(probability) {
  if (probability > 0.9995 && probability < 1) return "> 99.9\u202f%";
  if (probability < 0.0005 && probability > 0) return "< 0.1\u202f%";
  return `${(100 * probability).toFixed(1)}\u202f%`;
}
