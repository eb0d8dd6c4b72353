// Renew what is live on the page every few seconds; what the reader has opened stays open.
"use strict";

const EVERY_MS = 4000;

async function renew() {
  const live = document.getElementById("live");
  if (!live || document.hidden) return;
  const answer = await fetch(location.href, { credentials: "same-origin" });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
  if (!fresh) return location.reload(); // the session is over
  for (const opened of live.querySelectorAll("details[open]")) {
    const same = fresh.querySelector("#" + CSS.escape(opened.id));
    if (same) same.open = true;
  }
  live.replaceWith(document.importNode(fresh, true));
  const pane = document.getElementById("pane");
  if (pane) pane.scrollTop = pane.scrollHeight;
}

setInterval(() => renew().catch(() => {}), EVERY_MS);
