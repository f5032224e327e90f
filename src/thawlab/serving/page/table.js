// The table of runs as values: what matches a filter, which columns tell runs apart, and in which order they stand.

export const COLUMNS = [
  { key: "name", title: "run", text: true, value: row => row.name },
  { key: "status", title: "status", text: true, value: row => row.status },
  { key: "test_accuracy", title: "test accuracy", value: row => row.test_accuracy },
  { key: "progress", title: "epoch", value: row => row.epoch ?? -1 },
  { key: "val_accuracy", wide: true, title: "val accuracy", value: row => row.val_accuracy },
  { key: "seconds", wide: true, title: "time", value: row => row.seconds },
  { key: "changed", wide: true, title: "changed", value: row => row.changed },
];
const MOST_CHOSEN = 4;

export const written = value => value === null || value === undefined ? "none" : typeof value === "string" ? value : JSON.stringify(value);

export function columnOf(key) {
  return COLUMNS.find(column => column.key === key) ?? { key, title: key, text: true, setting: true, value: row => row.settings[key] };
}

// The shortest ending of a key that tells it from the others beside it.
export function ending(key, others) {
  const parts = key.split(".");
  const endings = parts.map((_, index) => parts.slice(parts.length - 1 - index).join("."));
  return endings.find(end => !others.some(other => other !== key && (other === end || other.endsWith(`.${end}`)))) ?? key;
}

export function keysOf(rows) {
  const keys = new Set();
  for (const row of rows) for (const key of Object.keys(row.settings)) keys.add(key);
  return [...keys].sort();
}

// The keys in which runs differ; those that most runs have and that have the fewest values say most.
export function differingKeys(rows) {
  const found = [];
  for (const key of keysOf(rows)) {
    if (key.startsWith("imported.")) continue;
    const values = new Set(), having = rows.filter(row => key in row.settings);
    for (const row of having) values.add(written(row.settings[key]));
    if (values.size > 1) found.push({ key, rank: [-having.length, importance(key), values.size] });
  }
  found.sort((a, b) => a.rank[0] - b.rank[0] || a.rank[1] - b.rank[1] || a.rank[2] - b.rank[2]);
  return found.map(one => one.key);
}

export const tellingKeys = rows => differingKeys(rows).slice(0, MOST_CHOSEN);

const FIRST = ["model.backbone", "data.source", "data.train_size", "data.image_size", "phases.0.lr", "phases.0.train"];
const importance = key => FIRST.includes(key) ? FIRST.indexOf(key) : FIRST.length;

// Turns a filter's text into conditions; a key may be cut to its end, as in backbone=bundled.
export function conditions(text, keys) {
  const known = [...keys, "name", "status"];
  const unknown = [];
  const all = text.trim().split(/\s+/).filter(Boolean).map(word => {
    const [, key, sign, value] = word.match(/^([\w.-]+)(!=|<=|>=|=|<|>)(.*)$/) ?? [];
    if (!key) return row => plain(row).includes(word.toLowerCase());
    const meant = known.filter(one => one === key || one.endsWith(`.${key}`));
    if (!meant.length) unknown.push(key);
    return row => meant.some(one => (one in row.settings || one === "name" || one === "status") && holds(row.settings[one] ?? row[one], sign, value));
  });
  return { matches: row => all.every(condition => condition(row)), unknown };
}

const plain = row => `${row.name} ${row.status} ${Object.values(row.settings).map(written).join(" ")}`.toLowerCase();

function holds(value, sign, wanted) {
  const number = Number(wanted), numeric = wanted !== "" && !Number.isNaN(number) && typeof value === "number";
  const equal = numeric ? value === number : written(value).toLowerCase() === wanted.toLowerCase();
  if (sign === "=") return equal;
  if (sign === "!=") return !equal;
  return numeric && { "<": value < number, ">": value > number, "<=": value <= number, ">=": value >= number }[sign];
}

// What is not known stands last, however the others are sorted.
export function sorted(rows, column, falling) {
  const absent = value => value === null || value === undefined;
  const order = (x, y) => typeof x === "number" && typeof y === "number" ? x - y : written(x).localeCompare(written(y), "en", { numeric: true });
  return [...rows].sort((a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    if (absent(x) || absent(y)) return absent(x) - absent(y) || a.name.localeCompare(b.name);
    return (falling ? order(y, x) : order(x, y)) || a.name.localeCompare(b.name);
  });
}
