// What the pages share: asking the server, and a card for a picture with what the models say of it.

export const AT_ONCE = 8;
const MOST_BYTES = 10_000_000;

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made && key !== "list") made[key] = value; else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;

// Asks the server; what it refuses becomes an Error with its message. `status` tells a missing token.
export async function ask(path, options = {}) {
  const token = sessionStorage.getItem("thawlab-token");
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer.");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => null);
  const error = new Error(said?.error?.message ?? `The server answered ${response.status}.`);
  error.status = response.status;
  throw error;
}

export function form(files) {
  const body = new FormData();
  for (const file of files) body.append("pictures", file, "picture");
  return body;
}

function bars(answer) {
  const inSet = new Set(answer.prediction_set ?? []);
  return element("ol", { className: "bars" }, ...answer.predictions.map(({ class: name, probability }) => {
    const fill = element("div", { className: "fill" });
    requestAnimationFrame(() => fill.style.setProperty("width", percent(probability, 2).replace(" ", "")));
    const line = element("div", { className: "line" }, element("span", { textContent: name }), element("span", { textContent: percent(probability) }));
    return element("li", { className: inSet.size > 1 && inSet.has(name) ? "in-set" : "" }, line, element("div", { className: "track", ariaHidden: "true" }, fill));
  }));
}

function verdict(answer) {
  if (answer.novel) return element("span", { className: "badge novel", textContent: "not like anything in training" });
  if (answer.unsure) return element("span", { className: "badge unsure", textContent: `unsure: ${answer.prediction_set.length} classes are possible` });
  // Sets are empty also where a class is all but certain and most others are more certain still: that needs no warning.
  if (answer.prediction_set?.length === 0 && answer.predictions[0].probability < 0.9) return element("span", { className: "badge unsure", textContent: "less sure than it usually is" });
  return "";
}

// Fills a card with the answers of all models; "why" lays Grad-CAM over the picture.
function fill(card, file, answers) {
  card.querySelector(".answers").replaceChildren(...answers.map(answer => {
    const why = element("button", { className: "button second", type: "button", textContent: `Why “${answer.predictions[0].class}”?` });
    why.addEventListener("click", () => overlay(card, file, answer, why));
    const name = answers.length > 1 ? [element("h3", { textContent: answer.model })] : [];
    return element("section", {}, ...name, verdict(answer), bars(answer), why);
  }));
}

async function overlay(card, file, answer, button) {
  const query = new URLSearchParams({ model: answer.model, class: answer.predictions[0].class });
  button.disabled = true;
  try {
    const response = await ask(`/v1/explain?${query}`, { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file });
    const address = URL.createObjectURL(await response.blob());
    const [fitted, heat, range] = [".fitted", ".heat", ".fade input"].map(part => card.querySelector(part));
    fitted.src = heat.src = address;
    fitted.hidden = heat.hidden = false;
    heat.alt = `Grad-CAM: what speaks for ${answer.predictions[0].class}`;
    card.querySelector(".stage").classList.add("explained");
    card.querySelector(".fade").hidden = false;
    const fade = () => heat.style.setProperty("opacity", range.value / 100);
    range.oninput = fade;
    fade();
    card.querySelectorAll(".answers button").forEach(other => other.setAttribute("aria-pressed", other === button));
  } catch (error) {
    button.replaceWith(element("p", { className: "error", textContent: error.message }));
  } finally {
    button.disabled = false;
  }
}

function cardOf(template, file) {
  const card = template.content.firstElementChild.cloneNode(true);
  const name = file.name || "pasted picture";
  const thumb = card.querySelector(".thumb");
  thumb.src = URL.createObjectURL(file);
  thumb.alt = name;
  card.querySelector(".name").textContent = name;
  return card;
}

const failed = (card, message) => card.querySelector(".answers").replaceChildren(element("p", { className: "error", textContent: message }));

// Shows cards for files, newest first, and asks for them a few at a time.
export async function show(files, { template, list, status, models = [] }) {
  const cards = files.map(file => cardOf(template, file));
  list.prepend(...cards);
  const query = new URLSearchParams(models.map(name => ["model", name])).toString();
  let done = 0;
  for (let start = 0; start < files.length; start += AT_ONCE) {
    const group = files.slice(start, start + AT_ONCE).map((file, k) => ({ file, card: cards[start + k] }));
    status.textContent = `Looking at ${start + 1} to ${start + group.length} of ${files.length} …`;
    const fit = group.filter(({ file, card }) => file.size <= MOST_BYTES || failed(card, "The file has more than 10 MB."));
    if (!fit.length) continue;
    try {
      const response = await ask(`/v1/predict${query && `?${query}`}`, { method: "POST", body: form(fit.map(({ file }) => file)) });
      (await response.json()).pictures.forEach((picture, k) => {
        if (picture.error) failed(fit[k].card, `Cannot be read: ${picture.error}.`);
        else { fill(fit[k].card, fit[k].file, picture.answers); done += 1; }
      });
    } catch (error) {
      fit.forEach(({ card }) => failed(card, error.message));
    }
  }
  status.textContent = `${done} of ${files.length} ${files.length === 1 ? "picture" : "pictures"} answered.`;
}

// Lets pictures be dropped, pasted, chosen and photographed.
export function receive(drop, inputs, take) {
  const images = list => [...list].filter(file => file.type.startsWith("image/") || !file.type);
  const stop = event => event.preventDefault();
  document.addEventListener("dragover", event => { stop(event); drop.classList.add("over"); });
  document.addEventListener("dragleave", event => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", event => { stop(event); drop.classList.remove("over"); take(images(event.dataTransfer.files)); });
  document.addEventListener("paste", event => { const found = images(event.clipboardData.files); if (found.length) take(found); });
  for (const input of inputs) input.addEventListener("change", () => { take(images(input.files)); input.value = ""; });
}
