// The page: a file, one model or two, and what they say.
"use strict";

const at = (id) => document.getElementById(id);
const thresholds = new Map();
let models = [];
let file = null;
let answers = [];
// What stops the requests of the run before; a run whose signal is aborted says nothing more.
let running = new AbortController();
let playing = null;

function element(tag, text, ...children) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

// Says it where it is seen; an answer, which stands in the tables, is only read aloud.
function tell(text, seen = true) {
  at("status").textContent = text;
  at("status").classList.toggle("unseen", !seen);
}

function bytesInWords(bytes) {
  const units = ["bytes", "kB", "MB", "GB"];
  const power = bytes < 1000 ? 0 : Math.min(3, Math.floor(Math.log10(bytes) / 3));
  return `${power ? (bytes / 1000 ** power).toFixed(1) : bytes} ${units[power]}`;
}

class Refusal extends Error {}

async function ask(path, options = {}) {
  const token = sessionStorage.getItem("topgb-token");
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Refusal("The server does not answer; check that it is running.");
  }
  if (answer.ok) return answer;
  let detail = `The server answers with ${answer.status}.`;
  if (answer.headers.get("content-type") === "application/problem+json") detail = (await answer.json()).detail;
  if (answer.status === 401) askForToken(token ? detail : "");
  throw new Refusal(detail);
}

function askForToken(wrong) {
  at("token-form").hidden = false;
  at("token-error").textContent = wrong;
  at("token").focus();
}

at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("topgb-token", at("token").value);
  at("token-form").hidden = true;
  begin(true);
});

// Asks for the models and the examples; `focus` where the form that had the focus is gone.
async function begin(focus = false) {
  try {
    models = (await (await ask("/v1/models")).json()).models;
    at("model").replaceChildren(...models.map(({ name }) => new Option(name)));
    at("other").replaceChildren(new Option("no other", ""), ...models.map(({ name }) => new Option(name)));
    tell("");
    if (focus) at("model").focus();
    if (file) run();
    const { examples } = await (await ask("/v1/examples")).json();
    at("example-list").replaceChildren(...examples.map(exampleButton));
    at("examples").hidden = examples.length === 0;
  } catch (error) {
    tell(error.message);
  }
}

function exampleButton({ name, bytes }) {
  const button = element("button", `${name} (${bytesInWords(bytes)})`);
  button.type = "button";
  button.addEventListener("click", async () => {
    tell(`Fetching ${name} …`);
    try {
      const content = await (await ask(`/v1/examples/${encodeURIComponent(name)}`)).blob();
      take(new File([content], name, { type: mediaType(name) }));
    } catch (error) {
      refuseFile(error.message);
    }
  });
  return element("li", "", button);
}

// A dropped file knows its type, an example's name must tell.
function mediaType(name) {
  const end = name.toLowerCase().split(".").pop();
  if (["mp4", "m4v", "webm", "mov", "mkv", "ogv"].includes(end)) return `video/${end}`;
  if (["mp3", "wav", "ogg", "oga", "m4a", "flac", "opus"].includes(end)) return `audio/${end}`;
  if (["png", "jpg", "jpeg", "gif", "webp"].includes(end)) return `image/${end}`;
  return "application/octet-stream";
}

function refuseFile(text) {
  at("file-error").textContent = text;
  tell("");
}

at("file").addEventListener("change", () => {
  if (at("file").files.length) take(at("file").files[0]);
});
// Everywhere, since a browser leaves the page for a file that is dropped beside its place.
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    at("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) at("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  at("drop").classList.remove("over");
  const { files } = event.dataTransfer;
  if (files.length === 1) take(files[0]);
  else refuseFile("Drop one file at a time; several would need several answers.");
});
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (file) run();
});

function take(taken) {
  file = taken;
  at("again").hidden = false;
  if (models.length) run();
  else tell(`${file.name} is tagged once the models are known.`);
}

async function run() {
  running.abort();
  const mine = (running = new AbortController()).signal;
  const names = [...new Set([at("model").value, at("other").value].filter(Boolean))];
  refuseFile("");
  tell(`Tagging ${file.name} …`);
  at("results-title").textContent = `Tags of ${file.name}`;
  at("results").hidden = false;
  at("videos-field").hidden = true;
  showPlayer();
  const places = names.map((name) => placeOf(name));
  at("models").replaceChildren(...places);
  answers = [];
  // One after another, so that the milliseconds of one are not those of waiting for the other.
  for (const [index, name] of names.entries()) {
    try {
      const answer = await tagWith(name, mine);
      if (mine.aborted) return;
      answers.push(answer);
    } catch (error) {
      if (mine.aborted) return;
      const wrong = element("p", error.message);
      wrong.className = "wrong";
      wrong.setAttribute("role", "alert");
      places[index].append(wrong);
    }
  }
  const videos = answers[0]?.value.videos ?? [];
  at("videos").replaceChildren(...videos.map(({ path }, index) => new Option(path, index)));
  at("videos-field").hidden = videos.length < 2;
  for (const button of [at("json"), at("csv")]) button.disabled = answers.length === 0;
  show();
  at("results-title").focus({ preventScroll: true });
  at("results").scrollIntoView({ block: "nearest" });
}

function placeOf(name) {
  const { bytes, classes } = models.find((model) => model.name === name);
  const about = element("p", `${bytesInWords(bytes)}, ${classes.toLocaleString("en")} classes`);
  about.className = "quiet";
  const place = element("article", "", element("h3", name), about, element("div"));
  place.dataset.model = name;
  return place;
}

async function tagWith(name, signal) {
  const model = models.find((one) => one.name === name);
  const form = new FormData();
  form.append("file", file);
  form.append("model", name);
  form.append("top", at("top").value);
  if (at("stretch").value && model.level === "frame") form.append("timeline", at("stretch").value);
  if (model.thresholds && !thresholds.has(name)) {
    const found = await (await ask(`/v1/thresholds?model=${encodeURIComponent(name)}`, { signal })).json();
    thresholds.set(name, found.thresholds);
  }
  const answer = await ask("/v1/tag", { method: "POST", body: form, signal });
  const timing = Object.fromEntries([...(answer.headers.get("server-timing") ?? "").matchAll(/(\w+);dur=([\d.]+)/g)]
    .map(([, what, milliseconds]) => [what, Number(milliseconds)]));
  return { name, timing, value: await answer.json() };
}

at("videos").addEventListener("change", show);

// Shows the chosen video's tags by each model that has answered.
function show() {
  const number = Number(at("videos").value || 0);
  const said = [];
  for (const { name, timing, value } of answers) {
    const video = value.videos[number];
    const place = [...at("models").children].find((one) => one.dataset.model === name);
    const { bytes, classes } = models.find((model) => model.name === name);
    place.querySelector("p").textContent =
      `${bytesInWords(bytes)}, ${classes.toLocaleString("en")} classes, ${timing.model.toFixed(1)} ms` +
      ` and ${timing.features.toFixed(0)} ms for the features`;
    const parts = [tagTable(video.tags, name, thresholds.get(name))];
    for (const remark of video.remarks ?? []) parts.push(quiet(`Note: ${remark}`));
    if (video.timeline.length) parts.push(element("h4", "When"), timeline(video, name));
    place.querySelector("div").replaceChildren(...parts);
    const best = video.tags.map((tag) => `${tag.name} ${tag.probability.toFixed(2)}`).join(", ");
    said.push(`${name}: ${best || "no tag"}`);
  }
  tell(said.length ? `${file.name}. ${said.join(". ")}.` : "", false);
}

function timeline(video, name) {
  const table = timelineTable(video.timeline, `Timeline of ${name}`, jump);
  playing?.addEventListener("timeupdate", () => markMoment(table, video.timeline, playing.currentTime));
  const box = element("div", "", table);
  box.className = "scroll";
  return box;
}

function jump(seconds) {
  const plays = playing && !playing.error && playing.readyState > 0;
  if (plays) playing.currentTime = seconds;
  tell(plays ? `The player is at ${clock(seconds)}.` : `${clock(seconds)}; the browser cannot play this file.`);
}

function showPlayer() {
  if (playing?.src || at("player").firstChild?.src) URL.revokeObjectURL(at("player").firstChild.src);
  const kind = { video: "video", audio: "audio", image: "img" }[file.type.split("/")[0]];
  playing = null;
  at("player").replaceChildren();
  if (!kind) return;
  const player = element(kind);
  player.src = URL.createObjectURL(file);
  if (kind === "img") {
    player.alt = file.name;
  } else {
    player.controls = true;
    player.setAttribute("aria-label", file.name);
    playing = player;
  }
  at("player").append(player);
}

at("json").addEventListener("click", () => {
  save(JSON.stringify(answers.map(({ value }) => value), null, 2), "application/json", `${file.name}.tags.json`);
});
at("csv").addEventListener("click", () => {
  save(asCsv(answers.map(({ value }) => value)), "text/csv", `${file.name}.tags.csv`);
});

begin();
