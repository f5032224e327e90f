// Server-sent events read with fetch, since an EventSource cannot send a token.

import { ask } from "/pictures.js";

const PAUSE = 3000;

// Calls `take(kind, value)` for each event until one of the kind "end" came; begins again where the connection broke.
export async function follow(path, take, broken = () => {}) {
  for (;;) {
    try {
      const response = await ask(path, { headers: { Accept: "text/event-stream" } });
      take("again", null);
      if (await read(response.body.getReader(), take)) return;
    } catch (problem) {
      if (problem.status && problem.status !== 503) throw problem;
    }
    broken();
    await new Promise(done => setTimeout(done, PAUSE));
  }
}

async function read(reader, take) {
  const decoder = new TextDecoder();
  let held = "", over = false;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return over;
    held += decoder.decode(value, { stream: true });
    const blocks = held.split("\n\n");
    held = blocks.pop();
    for (const block of blocks) {
      const [kind, data] = ["event", "data"].map(field => block.match(new RegExp(`^${field}: (.*)$`, "m"))?.[1]);
      if (!kind) continue;
      over ||= kind === "end";
      take(kind, JSON.parse(data));
    }
  }
}
