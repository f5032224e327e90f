import { ask, element, percent } from "/pictures.js";
import { choose } from "/chooser.js";
import { runPath, start } from "/session.js";

const part = id => document.getElementById(id);
const name = new URLSearchParams(location.search).get("name") ?? "";
const path = runPath(name);
const WORDS = { keep: "label kept", relabel: "relabelled", exclude: "excluded", unsure: "unsure" };
const AHEAD = 3, MOST_KEPT = 60;
const decided = new Map(), pictures = new Map(), history = [];
let suspects = [], classes = [], place = 0, sending = Promise.resolve();

const word = ({ decision, label }) => decision === "relabel" ? `relabelled “${label}”` : WORDS[decision];
const done = () => suspects.filter(one => decided.has(one.id)).length;

function picture(suspect) {
  if (!pictures.has(suspect.id)) {
    const query = new URLSearchParams({ id: suspect.id });
    const loaded = ask(`${path}/image?${query}`).then(response => response.blob()).then(URL.createObjectURL);
    loaded.catch(() => pictures.delete(suspect.id));
    pictures.set(suspect.id, loaded);
    if (pictures.size > MOST_KEPT) {
      const [oldest, address] = pictures.entries().next().value;
      pictures.delete(oldest);
      address.then(URL.revokeObjectURL, () => {});
    }
  }
  return pictures.get(suspect.id);
}

function draw() {
  const suspect = suspects[place], decision = decided.get(suspect.id), count = done();
  part("file").textContent = `${suspect.id} (${suspect.split})`;
  part("reason").textContent = `${place + 1} of ${suspects.length} · ${suspect.reason}`;
  part("given").textContent = suspect.given;
  part("predicted").replaceChildren(suspect.predicted, element("span", { className: "muted", textContent: ` ${percent(suspect.probability, 0)}` }));
  part("decision").hidden = !decision;
  part("decision").textContent = decision ? `You said: ${word(decision)}` : "";
  for (const button of document.querySelectorAll("[data-decision]")) button.setAttribute("aria-pressed", decision?.decision === button.dataset.decision);
  part("done").max = suspects.length;
  part("done").value = count;
  part("count").textContent = `${count} of ${suspects.length} decided`;
  part("previous").disabled = place === 0;
  part("next").disabled = place === suspects.length - 1;
  part("undo").disabled = !history.length;
  drawImage(suspect);
}

async function drawImage(suspect) {
  const image = part("image");
  image.alt = `Picture ${suspect.id}, labelled ${suspect.given}`;
  const timer = setTimeout(() => image.removeAttribute("src"), 150);  // no flicker where it is at hand
  try {
    const address = await picture(suspect);
    if (suspects[place] === suspect) image.src = address;
  } catch (problem) {
    if (suspects[place] === suspect) { image.removeAttribute("src"); image.alt = problem.message; }
  } finally {
    clearTimeout(timer);
  }
  for (const next of suspects.slice(place + 1, place + 1 + AHEAD)) picture(next).catch(() => {});
}

function move(to) {
  place = Math.min(Math.max(to, 0), suspects.length - 1);
  draw();
}

// Goes on at once; what the server then refuses brings the picture back.
function decide(decision, label = "") {
  const suspect = suspects[place], before = decided.get(suspect.id), entry = { decision, label };
  decided.set(suspect.id, entry);
  history.push(suspect.id);
  const left = suspects.findIndex((one, index) => index > place && !decided.has(one.id));
  const rest = left >= 0 ? left : suspects.findIndex(one => !decided.has(one.id));
  part("said").textContent = `${suspect.id}: ${word(entry)}. ${done()} of ${suspects.length} decided.${rest < 0 ? " That was the last one." : ""}`;
  move(rest >= 0 ? rest : place);
  sending = sending.then(async () => {
    try {
      await ask(`${path}/corrections`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ id: suspect.id, decision, label }) });
      part("problem").textContent = "";
    } catch (problem) {
      if (decided.get(suspect.id) === entry) decided[before ? "set" : "delete"](suspect.id, before);
      part("problem").textContent = problem.message;
      move(suspects.indexOf(suspect));
    }
  });
}

function askClass() {
  const suspect = suspects[place];
  const first = suspect.predicted === suspect.given ? [] : [suspect.predicted];
  choose(classes.filter(one => one !== suspect.given), first, label => decide("relabel", label));
}

const act = decision => decision === "relabel" ? askClass() : decide(decision);
const undo = () => { const last = history.pop(); if (last) move(suspects.findIndex(one => one.id === last)); };
const KEYS = { k: () => act("keep"), r: () => act("relabel"), e: () => act("exclude"), u: () => act("unsure"), z: undo, ArrowLeft: () => move(place - 1), ArrowRight: () => move(place + 1) };

document.addEventListener("keydown", event => {
  if (!suspects.length || part("content").hidden || part("chooser").open || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, pre")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (!(key in KEYS)) return;
  event.preventDefault();
  KEYS[key]();
});

async function begin() {
  const [found, soFar] = await Promise.all([`${path}/suspects`, `${path}/corrections`].map(async one => (await ask(one)).json()));
  [suspects, classes] = [found.suspects, found.classes];
  for (const { id, decision, label } of soFar.decided) decided.set(id, { decision, label });
  part("table").textContent = soFar.file;
  part("command").textContent = soFar.command;
  part("lead").textContent = `${name}: ${found.count} held-out pictures whose label the classifier doubts or contradicts${found.count > suspects.length ? `; the first ${suspects.length}` : ""}.`;
  part("back").replaceWith(element("a", { href: `/run?${new URLSearchParams({ name })}`, textContent: name }));
  if (!suspects.length) { part("none").hidden = false; part("content").classList.add("empty"); return; }
  move(Math.max(suspects.findIndex(one => !decided.has(one.id)), 0));
}

for (const button of document.querySelectorAll("[data-decision]")) button.addEventListener("click", () => act(button.dataset.decision));
part("previous").addEventListener("click", () => move(place - 1));
part("next").addEventListener("click", () => move(place + 1));
part("undo").addEventListener("click", undo);
part("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(part("command").textContent);
  part("said").textContent = "The command is copied.";
});
start(begin);
