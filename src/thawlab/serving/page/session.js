// What all pages share: the token, and links that a browser can follow without it.

import { ask, element } from "/pictures.js";

const part = id => document.getElementById(id);

// Runs `begin`; where a token is missing, asks for it and begins again.
export async function start(begin) {
  try {
    await begin();
    part("token").hidden = true;
    part("content").hidden = false;
  } catch (problem) {
    if (problem.status !== 401) { part("problem").textContent = problem.message; return; }
    part("token-error").textContent = sessionStorage.getItem("thawlab-token") ? "This token is not the right one." : "";
    part("token").hidden = false;
    part("token").onsubmit = event => {
      event.preventDefault();
      sessionStorage.setItem("thawlab-token", part("secret").value.trim());
      start(begin);
    };
  }
}

// Opens a page that the server makes; a browser that goes there sends no token, so that the address must do.
export async function visit(address) {
  if (!sessionStorage.getItem("thawlab-token")) { location.assign(address); return; }
  try {
    location.assign((await (await ask(`/api/pass?${new URLSearchParams({ to: address })}`)).json()).address);
  } catch (problem) {
    part("problem").textContent = problem.message;
  }
}

export function link(address, text, className = "") {
  const made = element("a", { href: address, textContent: text, className });
  made.addEventListener("click", event => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || !sessionStorage.getItem("thawlab-token")) return;
    event.preventDefault();
    visit(address);
  });
  return made;
}

// A run of a study is STUDY/RUN.
export const inPath = name => name.split("/").map(encodeURIComponent).join("/");
export const runPath = name => `/api/runs/${inPath(name)}`;

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export const statusBadge = status => element("span", { className: `badge ${status}`, textContent: status });
