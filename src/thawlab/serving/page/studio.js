import { ask, element, percent } from "/pictures.js";
import { duration, start, statusBadge, visit } from "/session.js";
import { COLUMNS, columnOf, conditions, differingKeys, ending, keysOf, sorted, tellingKeys, written } from "/table.js";

const part = id => document.getElementById(id);
const POLL = 2000, AT_ONCE = 200, MOST_COMPARED = 12;
const runs = new Map(), drawn = new Map(), ticked = new Set();
let version = "", order = { key: "changed", falling: true }, shown = AT_ONCE, chosen = null, choices = "";

function columns() {
  const keys = chosen ?? tellingKeys([...runs.values()]);
  const settings = keys.map(key => ({ ...columnOf(key), title: ending(key, keys) }));
  return [...COLUMNS.slice(0, -2), ...settings, ...COLUMNS.slice(-2)];
}

const below = text => element("span", { className: "muted below", textContent: text });

function when(seconds) {
  const time = new Date(1000 * seconds), today = time.toDateString() === new Date().toDateString();
  const form = today ? { hour: "2-digit", minute: "2-digit" } : { day: "numeric", month: "short", year: "numeric" };
  return element("time", { dateTime: time.toISOString(), title: time.toLocaleString("en-GB"), textContent: time.toLocaleString("en-GB", form) });
}

function cell(column, row) {
  const made = element("td", { className: column.text ? "text" : "" });
  made.toggleAttribute("data-wide", Boolean(column.wide));
  if (column.setting) made.textContent = column.key in row.settings ? written(row.settings[column.key]) : "";
  else if (column.key === "status") made.append(statusBadge(row.status));
  else if (column.key === "progress" && row.epoch !== null) made.append(`${row.epoch}${row.epochs ? ` of ${row.epochs}` : ""}`, below(row.phase));
  else if (column.key === "val_accuracy" && row.val_accuracy !== null) made.textContent = percent(row.val_accuracy);
  else if (column.key === "seconds") made.textContent = duration(row.seconds);
  else if (column.key === "changed") made.append(when(row.changed));
  else if (column.key === "test_accuracy" && row.test_accuracy !== null) {
    const [low, high] = row.test_accuracy_ci95;
    made.append(element("b", { textContent: percent(row.test_accuracy) }), below(`${(100 * low).toFixed(1)} – ${(100 * high).toFixed(1)}`));
  }
  if (column.key === "status" && row.problem) made.append(element("span", { className: "error small problem", textContent: row.problem, title: row.problem }));
  return made;
}

function line(row, shownColumns) {
  const tick = element("input", { type: "checkbox", checked: ticked.has(row.name), ariaLabel: `Compare ${row.name}`, disabled: row.status !== "finished" });
  tick.addEventListener("change", () => { ticked[tick.checked ? "add" : "delete"](row.name); offerComparison(); });
  const name = element("th", { scope: "row", className: "text" }, element("a", { href: `/run?${new URLSearchParams({ name: row.name })}`, textContent: row.name }));
  const made = element("tr", {}, element("td", {}, tick), name, ...shownColumns.slice(1).map(column => cell(column, row)));
  made.dataset.name = row.name;
  return made;
}

function offerComparison() {
  part("compare").textContent = ticked.size ? `Compare ${ticked.size} ticked` : "Compare";
  part("compare").disabled = ticked.size < 2 || ticked.size > MOST_COMPARED;
  part("compare").title = ticked.size < 2 ? "Tick two to twelve finished runs" : "";
}

function draw(announce = false) {
  const shownColumns = columns(), keys = keysOf(runs.values());
  const { matches, unknown } = conditions(part("filter").value, keys);
  const found = sorted([...runs.values()].filter(matches), columnOf(order.key), order.falling);
  const mark = shownColumns.map(column => column.key).join(" ");
  const lines = found.slice(0, shown).map(row => {
    const held = drawn.get(row.name);
    if (held?.row === row && held.mark === mark) return held.line;
    const made = line(row, shownColumns);
    drawn.set(row.name, { row, mark, line: made });
    return made;
  });
  const body = part("rows");
  if (lines.length !== body.rows.length || lines.some((one, k) => body.rows[k] !== one)) {
    const focused = document.activeElement?.closest("#rows tr")?.dataset.name, tag = document.activeElement?.tagName;
    body.replaceChildren(...lines);
    if (focused) body.querySelector(`tr[data-name="${CSS.escape(focused)}"] ${tag.toLowerCase()}`)?.focus();
  }
  drawHeads(shownColumns);
  drawChoices(keys);
  part("more").hidden = found.length <= shown;
  const training = [...runs.values()].filter(row => row.status === "running").length;
  part("lead").textContent = `${runs.size.toLocaleString("en")} ${runs.size === 1 ? "run" : "runs"}${training ? `, ${training} training now` : ""}`;
  const hint = unknown.length ? `No run has the key “${unknown[0]}”.` : part("filter").value.trim() ? `${found.length} of ${runs.size} runs match.` : runs.size ? "" : "There are no runs yet: thawlab train PHOTOS/";
  if (announce || part("filter-hint").textContent !== hint) part("filter-hint").textContent = hint;
}

function drawHeads(shownColumns) {
  const mark = `${shownColumns.map(column => column.key).join(" ")} ${order.key} ${order.falling}`;
  if (part("heads").dataset.mark === mark) return;
  const focused = document.activeElement?.closest("#heads th")?.dataset.key;
  part("heads").replaceChildren(element("td", {}, element("span", { className: "visually-hidden", textContent: "compare" })), ...shownColumns.map(column => {
    const button = element("button", { type: "button", textContent: column.title, title: column.key });
    button.addEventListener("click", () => {
      order = { key: column.key, falling: order.key === column.key ? !order.falling : !column.text };
      draw();
    });
    const head = element("th", { scope: "col", className: column.text ? "text" : "" }, button);
    head.toggleAttribute("data-wide", Boolean(column.wide));
    head.dataset.key = column.key;
    if (order.key === column.key) head.setAttribute("aria-sort", order.falling ? "descending" : "ascending");
    return head;
  }));
  part("heads").dataset.mark = mark;
  if (focused) part("heads").querySelector(`[data-key="${CSS.escape(focused)}"] button`)?.focus();
}

function drawChoices(keys) {
  const differing = differingKeys([...runs.values()]), alike = keys.filter(key => !differing.includes(key));
  const mark = `${differing.join(" ")}|${alike.join(" ")}`;
  if (choices === mark) return;
  choices = mark;
  const now = new Set(columns().filter(column => column.setting).map(column => column.key));
  const choice = key => {
    const box = element("input", { type: "checkbox", checked: now.has(key), value: key });
    box.addEventListener("change", () => {
      chosen = [...part("choices").querySelectorAll("input:checked")].map(one => one.value);
      draw();
    });
    return element("label", {}, box, ` ${key}`);
  };
  const group = (title, own) => own.length ? [element("p", { textContent: title }), ...own.map(choice)] : [];
  part("choices").replaceChildren(...group("Differ between runs", differing), ...group("The same in all", alike));
}

async function look() {
  const found = await (await ask(`/api/runs?${new URLSearchParams({ since: version })}`)).json();
  if (found.whole) { runs.clear(); drawn.clear(); }
  for (const name of found.gone) { runs.delete(name); drawn.delete(name); ticked.delete(name); }
  for (const row of found.rows) runs.set(row.name, row);
  if (found.whole || found.rows.length || found.gone.length) { draw(); offerComparison(); }
  version = found.version;
  part("problem").textContent = "";
}

async function watch() {
  await look();
  const again = async () => {
    if (!document.hidden) await look().catch(problem => { part("problem").textContent = problem.message; });
    setTimeout(again, POLL);
  };
  setTimeout(again, POLL);
}

part("filter").addEventListener("input", () => { shown = AT_ONCE; draw(true); });
part("more").addEventListener("click", () => { shown += AT_ONCE; draw(); });
part("compare").addEventListener("click", () => visit(`/compare?${new URLSearchParams([...ticked].map(name => ["run", name]))}`));
document.addEventListener("keydown", event => { if (event.key === "Escape") part("columns").open = false; });
document.addEventListener("click", event => { if (!event.target.closest("#columns")) part("columns").open = false; });
start(watch);
