// Copy buttons, live figures, progress of a search, pictures that could not be rendered.
"use strict";

const LIVE_MS = 2000;
const STATE_MS = 10000;
const PROGRESS_MS = 1000;

async function ask(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" } });
  return { status: answer.status, body: await answer.json() };
}

function copyButtons() {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      await copy(button.dataset.copy, button.previousElementSibling);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
}

async function copy(text, shown) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // A page that came without TLS has no clipboard: the text is selected and copied as by hand.
    getSelection().selectAllChildren(shown);
    document.execCommand("copy");
  }
}

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const step = count ? Math.min(Math.floor(Math.log10(count) / 3), units.length - 1) : 0;
  return `${(count / 1000 ** step).toFixed(step ? 1 : 0)} ${units[step]}`;
}

function liveFigures() {
  const panel = document.querySelector("[data-live]");
  if (!panel) return;
  const shown = (name) => panel.querySelector(`[data-${name}]`);
  let last = null;

  async function figures() {
    if (document.hidden) return;
    const { body } = await ask("/live.json");
    const now = performance.now();
    shown("records").textContent = body.records_served.toLocaleString("en");
    shown("pages").textContent = `${bytes(body.page_bytes)} of ${bytes(body.page_budget)}`;
    if (last) {
      const rate = (body.records_served - last.records) / ((now - last.at) / 1000);
      shown("rate").textContent = Math.round(Math.max(0, rate)).toLocaleString("en");
    }
    last = { records: body.records_served, at: now };
  }

  async function state() {
    if (document.hidden) return;
    const { status, body } = await ask("/readyz");
    panel.dataset.ready = status === 200;
    shown("state").textContent = status === 200 ? "ready" : body.detail || "not ready";
  }

  const unreachable = () => {
    panel.dataset.ready = false;
    shown("state").textContent = "does not answer";
  };
  const repeat = (task, pause) => {
    const once = () => task().catch(unreachable).finally(() => setTimeout(once, pause));
    once();
  };
  // Who sees some of the caches alone has no figures of the whole server.
  if (shown("records")) repeat(figures, LIVE_MS);
  repeat(state, STATE_MS);
}

function searchProgress() {
  const panel = document.querySelector("[data-progress]");
  if (!panel) return;
  const timer = setInterval(async () => {
    const { body } = await ask(panel.dataset.progress);
    panel.querySelector("progress").value = body.rows;
    panel.querySelector("[data-rows]").textContent = body.rows.toLocaleString("en");
    if (body.rows === body.samples || body.failure) {
      clearInterval(timer);
      location.reload();
    }
  }, PROGRESS_MS);
}

function missingPictures() {
  for (const picture of document.querySelectorAll("[data-picture]")) {
    const explain = async () => {
      const { body } = await ask(picture.src);
      const said = document.createElement("p");
      said.className = "quiet";
      said.textContent = body.detail;
      picture.replaceWith(said);
    };
    if (picture.complete && !picture.naturalWidth && picture.currentSrc) explain();
    else picture.addEventListener("error", explain, { once: true });
  }
}

copyButtons();
liveFigures();
searchProgress();
missingPictures();
