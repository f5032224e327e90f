import { ask, element, percent, receive, show } from "/pictures.js";
import { draw } from "/curves.js";
import { follow } from "/events.js";
import { duration, inPath, link, runPath, start, statusBadge } from "/session.js";
import { written } from "/table.js";

const part = id => document.getElementById(id);
const name = new URLSearchParams(location.search).get("name") ?? "";
const path = runPath(name);
let rows = [], state = null, waiting = false;

const loss = value => value === null ? "–" : Math.abs(value) < 0.001 ? value.toExponential(1) : Number(value.toPrecision(3)).toString();
const share = value => value === null ? "–" : percent(value);

function fact(value, about, main = false) {
  return element("div", { className: main ? "fact main" : "fact" }, element("b", { textContent: value }), element("span", { textContent: about }));
}

function drawFacts() {
  const facts = [];
  if (state.test_accuracy !== null) {
    const [low, high] = state.test_accuracy_ci95;
    facts.push(fact(percent(state.test_accuracy), `test accuracy, 95 % interval ${percent(low)} to ${percent(high)}`, true));
  }
  if (state.val_accuracy !== null) facts.push(fact(percent(state.val_accuracy), "validation accuracy"));
  if (state.epoch !== null) facts.push(fact(`${state.epoch}${state.epochs ? ` of ${state.epochs}` : ""}`, `epochs of “${state.phase}”`));
  if (state.seconds !== null) facts.push(fact(duration(state.seconds), state.status === "finished" ? "in all" : "of training so far"));
  part("facts").replaceChildren(...facts);
  part("state").replaceChildren(statusBadge(state.status), ...(state.problem ? [element("span", { className: "error", textContent: state.problem })] : []));
  const finished = state.status === "finished";
  part("links").replaceChildren(...(finished ? [
    link(`/runs/${inPath(name)}/report`, "Report", "button"),
    element("a", { href: `/correct?${new URLSearchParams({ name })}`, textContent: "Correct labels", className: "button second" }),
  ] : []));
  if (finished && part("sample-box").hidden) drawSamples();
  part("try").hidden = !(finished || state.status === "imported");
}

function drawCurves() {
  waiting = false;
  part("curves").hidden = part("epochs-box").hidden = !rows.length;
  part("curves-empty").hidden = rows.length > 0;
  if (!rows.length) return;
  const of = key => rows.map(row => row[key]);
  draw(part("loss"), rows, [{ name: "train", className: "train", values: of("train_loss") }, { name: "validation", className: "val", values: of("val_loss") }], loss, hover);
  draw(part("accuracy"), rows, [{ name: "validation", className: "val", values: of("val_accuracy") }], value => `${Number((100 * value).toFixed(1))} %`, hover);
  part("epochs").replaceChildren(...rows.map(row => element("tr", {},
    element("th", { scope: "row", textContent: row.phase }), ...[row.epoch, loss(row.train_loss), loss(row.val_loss), share(row.val_accuracy), row.lr.toPrecision(3), row.images_per_second?.toLocaleString("en") ?? "–"].map(text => element("td", { textContent: text })))));
}

function hover(index) {
  const row = rows[index];
  part("reading").textContent = row ? `Epoch ${row.epoch} of ${row.phase}: train loss ${loss(row.train_loss)}, validation loss ${loss(row.val_loss)}, validation accuracy ${share(row.val_accuracy)}` : "";
}

// Many rows come together at first; they are drawn once.
function soon() {
  if (!waiting) requestAnimationFrame(drawCurves);
  waiting = true;
}

function take(kind, value) {
  if (kind === "again") { rows = []; soon(); }
  if (kind === "row") {
    rows.push(value);
    soon();
    if (state?.status === "running") part("heard").textContent = `Epoch ${value.epoch}: validation accuracy ${share(value.val_accuracy)}`;
  }
  if (kind === "state") { state = value; drawFacts(); part("problem").textContent = ""; }
  if (kind === "problem") part("problem").textContent = value;
}

async function drawSamples() {
  const { samples } = await (await ask(`${path}/samples`)).json().catch(() => ({ samples: [] }));
  part("samples").replaceChildren(...samples.map(({ url, label }) => element("li", {}, element("img", { src: url, alt: "", loading: "lazy" }), element("span", { textContent: label }))));
  part("sample-box").hidden = !samples.length;
}

async function begin() {
  const { rows: all } = await (await ask("/api/runs")).json();
  const own = all.find(row => row.name === name);
  if (!own) throw new Error(`There is no run “${name}”.`);
  part("recipe").replaceChildren(...Object.entries(own.settings).map(([key, value]) => element("tr", {}, element("th", { scope: "row", textContent: key }), element("td", { className: "text", textContent: written(value) }))));
  state = own;
  drawFacts();
  follow(`${path}/events`, take, () => { part("problem").textContent = "The connection broke; trying again."; }).catch(problem => { part("problem").textContent = problem.message; });
}

document.title = part("name").textContent = name;
new ResizeObserver(soon).observe(part("loss"));
receive(part("drop"), [part("files"), part("photo")], files => {
  if (part("try").hidden) return;
  part("drop-error").textContent = files.length ? "" : "These files are no pictures.";
  if (files.length) show(files, { template: part("picture"), list: part("pictures"), status: part("status"), models: [name] });
});
start(begin);
