// Learning curves as SVG, drawn at the size that they are shown in, so that text stays readable.

const SPACE = "http://www.w3.org/2000/svg";
const HEIGHT = 240, EDGE = { left: 52, right: 14, top: 12, bottom: 34 };

function shape(tag, attributes, text) {
  const made = document.createElementNS(SPACE, tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Round steps of an axis, about `count` of them.
function ticks(low, high, count) {
  const rough = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(size => size >= rough);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, k) => Number(((first + k) * step).toPrecision(12)));
}

// Draws lines over epochs: `lines` are { name, className, values }, null where nothing was measured.
export function draw(box, rows, lines, write, hover) {
  const width = Math.max(box.clientWidth, 240), all = lines.flatMap(line => line.values).filter(value => value !== null);
  if (!all.length) { box.replaceChildren(Object.assign(document.createElement("p"), { className: "muted", textContent: "Not measured." })); return; }
  const room = (Math.max(...all) - Math.min(...all)) * 0.06 || 0.05 * Math.abs(all[0]) || 0.05;
  const low = Math.min(...all) - room, high = Math.max(...all) + room;
  const x = index => EDGE.left + (rows.length > 1 ? index / (rows.length - 1) : 0.5) * (width - EDGE.left - EDGE.right);
  const y = value => EDGE.top + (high - value) / (high - low) * (HEIGHT - EDGE.top - EDGE.bottom);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": told(lines, rows, write) });
  for (const value of ticks(low, high, 4)) {
    svg.append(shape("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) }));
    svg.append(shape("text", { x: EDGE.left - 8, y: y(value) + 4, "text-anchor": "end" }, write(value)));
  }
  for (const epoch of ticks(1, Math.max(rows.length, 2), Math.min(rows.length, width / 90)).filter(one => one % 1 === 0 && one <= rows.length)) {
    svg.append(shape("text", { x: x(epoch - 1), y: HEIGHT - 14, "text-anchor": "middle" }, epoch));
  }
  addPhases(svg, rows, x);
  lines.forEach(line => addLine(svg, line, x, y));
  box.replaceChildren(svg, legend(lines));
  addPointer(svg, rows, x, hover);
}

// A line of one colour over all phases, with a mark at each epoch where there are few.
function addLine(svg, { className, values }, x, y) {
  const points = values.map((value, index) => value === null ? null : [x(index).toFixed(1), y(value).toFixed(1)]);
  const path = points.map((point, index) => point ? `${index && points[index - 1] ? "L" : "M"}${point.join(" ")}` : "").join("");
  svg.append(shape("path", { class: `curve ${className}`, d: path }));
  if (values.length <= 40) for (const point of points) if (point) svg.append(shape("circle", { class: `dot ${className}`, cx: point[0], cy: point[1], r: 2.6 }));
}

function addPhases(svg, rows, x) {
  if (rows.every(row => row.phase === rows[0].phase)) return;
  rows.forEach((row, index) => {
    if (index && row.phase === rows[index - 1].phase) return;
    const place = index ? (x(index) + x(index - 1)) / 2 : EDGE.left;
    if (index) svg.append(shape("line", { class: "phase", x1: place, x2: place, y1: EDGE.top, y2: HEIGHT - EDGE.bottom }));
    svg.append(shape("text", { class: "phase-name", x: place + 5, y: HEIGHT - EDGE.bottom - 5 }, row.phase));
  });
}

function legend(lines) {
  const list = document.createElement("ul");
  list.className = "legend";
  for (const { name, className } of lines) {
    const key = shape("svg", { width: 26, height: 10, "aria-hidden": "true" });
    key.append(shape("path", { class: `curve ${className}`, d: "M1 5H25" }));
    const item = document.createElement("li");
    item.append(key, name);
    list.append(item);
  }
  return list;
}

const told = (lines, rows, write) => `${rows.length} epochs; last ${lines.map(({ name, values }) => `${name} ${values.at(-1) === null ? "not measured" : write(values.at(-1))}`).join(", ")}`;

function addPointer(svg, rows, x, hover) {
  const mark = shape("line", { class: "pointer", y1: EDGE.top, y2: HEIGHT - EDGE.bottom, x1: -9, x2: -9 });
  svg.append(mark);
  const leave = () => { mark.setAttribute("x1", -9); mark.setAttribute("x2", -9); hover(null); };
  svg.addEventListener("pointermove", event => {
    const place = event.clientX - svg.getBoundingClientRect().left, span = rows.length > 1 ? x(1) - x(0) : 1;
    const index = Math.min(Math.max(Math.round((place - x(0)) / span), 0), rows.length - 1);
    for (const end of ["x1", "x2"]) mark.setAttribute(end, x(index));
    hover(index);
  });
  svg.addEventListener("pointerleave", leave);
}
