// A dialog to choose a class by typing, by number or with the arrows.

import { element } from "/pictures.js";

const part = id => document.getElementById(id);
let classes = [], shown = [], active = 0, numbered = true, chosen = () => {};

function draw() {
  const typed = part("wanted").value.trim().toLowerCase();
  const starts = name => name.toLowerCase().startsWith(typed);
  shown = classes.filter(name => name.toLowerCase().includes(typed));
  if (typed) shown.sort((a, b) => starts(b) - starts(a));
  active = Math.min(active, Math.max(shown.length - 1, 0));
  part("classes").replaceChildren(...shown.map((name, index) => {
    const number = numbered && !typed && index < 9 ? [element("kbd", { textContent: index + 1 }), " "] : [];
    const option = element("li", { id: `class-${index}`, role: "option", ariaSelected: index === active }, ...number, name);
    option.addEventListener("click", () => finish(name));
    return option;
  }));
  if (shown.length) part("wanted").setAttribute("aria-activedescendant", `class-${active}`);
  else part("wanted").removeAttribute("aria-activedescendant");
  part("classes").children[active]?.scrollIntoView({ block: "nearest" });
}

// The field would keep the focus until the next frame, and a key pressed before that would be lost in it.
function leave() {
  part("chooser").close();
  part("wanted").blur();
}

function finish(name) {
  leave();
  chosen(name);
}

// Asks for a class; `first` stand at the top. Where names of classes begin with digits, digits are typed and choose nothing.
export function choose(names, first, then) {
  classes = [...first, ...names.filter(name => !first.includes(name))];
  [numbered, chosen, active] = [!names.some(name => /^\d/.test(name)), then, 0];
  part("chooser-hint").textContent = `${numbered ? "A number chooses, typing" : "Typing"} narrows the list, Enter takes the marked one, Escape leaves.`;
  part("wanted").value = "";
  draw();
  part("chooser").showModal();
  part("wanted").focus();
}

part("wanted").addEventListener("input", () => { active = 0; draw(); });
part("wanted").addEventListener("keydown", event => {
  const moves = { ArrowDown: 1, ArrowUp: -1 };
  if (event.key in moves) {
    active = (active + moves[event.key] + shown.length) % Math.max(shown.length, 1);
    draw();
  } else if (event.key === "Escape") leave();
  else if (event.key === "Enter" && shown.length) finish(shown[active]);
  else if (numbered && !event.target.value && /^[1-9]$/.test(event.key) && shown[event.key - 1]) finish(shown[event.key - 1]);
  else return;
  event.preventDefault();
});
