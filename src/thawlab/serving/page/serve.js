import { ask, element, percent, receive, show } from "/pictures.js";
import { start } from "/session.js";

const [drop, list, status, error] = ["drop", "pictures", "status", "drop-error"].map(id => document.getElementById(id));

function about(model) {
  const card = element("div", { className: "card" }, element("h3", { textContent: model.name }));
  if (model.test_accuracy !== null) {
    const [low, high] = model.test_accuracy_ci95;
    card.append(element("p", {}, element("span", { className: "big", textContent: percent(model.test_accuracy) }),
      ` right on ${model.n_test.toLocaleString("en")} test images (95 % interval ${percent(low)} to ${percent(high)})`));
  }
  const classes = model.classes.length > 12 ? `${model.classes.slice(0, 12).join(", ")} … (${model.classes.length} in all)` : model.classes.join(", ");
  const facts = [model.dataset && `trained on ${model.dataset}, ${model.n_train.toLocaleString("en")} images`, model.backbone, `input ${model.size} px`,
    model.engine !== "torch" && `computed by ${model.engine}`].filter(Boolean).join("; ");
  card.append(element("p", { className: "muted", textContent: `Knows: ${classes}` }), element("p", { className: "muted", textContent: facts }));
  const told = model.findings.filter(finding => finding.severity !== "info");
  if (told.length) card.append(element("ul", {}, ...told.map(finding => element("li", { textContent: `${finding.evidence}; ${finding.advice}` }))));
  return card;
}

async function begin() {
  const { models } = await (await ask("/v1/models")).json();
  document.getElementById("models").replaceChildren(...models.map(about));
}

receive(drop, [document.getElementById("files"), document.getElementById("photo")], files => {
  error.textContent = files.length ? "" : "These files are no pictures.";
  if (files.length) show(files, { template: document.getElementById("picture"), list, status });
});
start(begin);
