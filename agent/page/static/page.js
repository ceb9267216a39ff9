// The live page. Every text of others reaches the document as text, never as HTML.

const $ = (id) => document.getElementById(id);
const HEADERS = { "x-musedrop": "1" };
const PICTURE = /\.(jpe?g|jpe|jfif|png|apng|webp|bmp|dib|tiff?|gif|avif|hei[cf]|jp2|j2k|p[pgbna]m)$/i;
const VIDEO = /\.(mp4|mov|qt|mkv|webm|avi|m4v|ts|mts|m2ts?|mpe?g|vob|3g[p2]|wmv|asf|flv|ogv|mxf)$/i;
const SOUND = /\.(wav|mp3|m4a|aac|flac|ogg|opus|wma|aif[fc]?|amr|caf|e?ac3|au|snd|w64|wv|oga|mka|weba|m4b|m4r|bwf|txt)$/i;
const PAGE_ROWS = 60;

const texts = await (await fetch("/static/texts.json")).json();
const wanted = localStorage.getItem("language") || navigator.languages.find((tag) => /^(zh|en)/i.test(tag)) || "en";
let language = wanted.toLowerCase().startsWith("zh") ? "zh" : "en";
const sections = {};
let source = null;
let lostAt = null;

const say = (key, values = {}) =>
  texts[key][language].replace(/\{(\w+)\}/g, (_, name) => String(values[name]));

// A sentence of the server, in Chinese where it has one.
const told = (row, key) => (language === "zh" && row[`${key}_zh`]) || row[key];

function make(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const button = (key, act, props = {}) => make("button", { type: "button", className: "small", textContent: say(key), onclick: act, ...props });
const named = (text) => make("bdi", { className: "name", textContent: text, title: text });

// Replaces the children of a list, and keeps the node of a row that looks as before: a video goes on, focus stays.
function fill(list, rows, key, draw) {
  const known = new Map([...list.children].map((node) => [node.dataset.key, node]));
  const nodes = rows.map((row) => {
    const id = String(key(row));
    const text = JSON.stringify(row) + language;
    const before = known.get(id);
    if (before && before.dataset.row === text) return before;
    const node = draw(row, before);
    node.dataset.key = id;
    node.dataset.row = text;
    const focused = before?.contains(document.activeElement) ? document.activeElement.textContent : null;
    if (focused !== null) queueMicrotask(() => [...node.querySelectorAll("button,a")].find((one) => one.textContent === focused)?.focus());
    return node;
  });
  if (nodes.length !== list.children.length || nodes.some((node, n) => node !== list.children[n])) list.replaceChildren(...nodes);
}

const clock = (iso) => {
  const at = new Date(iso);
  const today = at.toDateString() === new Date().toDateString();
  return at.toLocaleString(language === "zh" ? "zh-CN" : undefined, today ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "short" });
};

const span = (seconds) => {
  const whole = Math.max(0, Math.round(seconds));
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60].map((n) => String(n).padStart(2, "0"));
  return (parts[0] === "00" ? parts.slice(1) : parts).join(":");
};

// requests -----------------------------------------------------------------------------------------------------------

function announce(text, kind = "") {
  $("said").textContent = text;
  $("said").className = kind;
}

async function post(path, body) {
  const options = { method: "POST", headers: HEADERS };
  if (body !== undefined) options.body = JSON.stringify(body);
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error(told(await answer.json().catch(() => ({})), "error") || answer.statusText);
  return answer;
}

const act = (path) => async (event) => {
  const pressed = event.currentTarget;
  pressed.disabled = true;
  try {
    await post(path);
  } catch (error) {
    announce(error.message, "bad");
  }
  pressed.disabled = false;
};

function upload(file) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/uploads?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("x-musedrop", "1");
    request.upload.onprogress = (event) =>
      announce(say("sending", { name: file.name, percent: Math.round((100 * event.loaded) / (event.total || 1)) }));
    request.onload = () => {
      const answer = (() => { try { return JSON.parse(request.responseText); } catch { return {}; } })();
      if (request.status === 200) resolve(answer.upload);
      else reject(new Error(told(answer, "error") || request.statusText));
    };
    request.onerror = () => reject(new Error(say("lost")));
    request.send(file);
  });
}

// the top -------------------------------------------------------------------------------------------------------------

function drawHead() {
  const head = sections.head;
  if (!head) return;
  const counts = sections.counts || {};
  const state = head.absence ? "away" : head.draining ? "draining" : head.paused ? "paused" : counts.running ? "running" : "idle";
  $("state").textContent = say(state);
  $("state").className = `pill ${{ away: "bad", draining: "warn", paused: "warn", running: "good", idle: "" }[state]}`;
  const order = ["running", "queued", "waiting", "done", "failed", "cancelled"];
  $("counts").textContent = order.filter((name) => counts[name]).map((name) => `${counts[name]} ${stateName(name)}`).join(" · ");
  $("pause").textContent = say(head.paused ? "resume" : "pause");
  $("pause").onclick = act(`/queue/${head.paused ? "resume" : "pause"}`);
  drawAlarms();
  document.title = counts.running ? `(${counts.running}) musedrop` : "musedrop";
}

const stateName = (name) => (language === "en" ? name : { running: "运行中", queued: "排队", waiting: "等待文件", done: "完成", failed: "失败", cancelled: "已取消" }[name]);

function drawAlarms() {
  const head = sections.head || {};
  const alarms = [lostAt ? say("lost") : "", told(head, "absence"), ...(told(head, "problems") || [])].filter(Boolean);
  fill($("alarms"), alarms, (text) => text, (text) => make("p", { textContent: text }));
}

// jobs ----------------------------------------------------------------------------------------------------------------

const rates = new Map();

// Frames a second over the last seconds; 0 while it is not known.
function measure(row) {
  if (row.stage !== "render") return rates.delete(row.uid) && 0;
  const now = performance.now() / 1000;
  const samples = rates.get(row.uid) || [];
  if (!samples.length || samples.at(-1)[1] !== row.units_done) samples.push([now, row.units_done]);
  while (samples.length > 2 && now - samples[0][0] > 5) samples.shift();
  rates.set(row.uid, samples);
  const [first, last] = [samples[0], samples.at(-1)];
  return last[0] > first[0] ? (last[1] - first[1]) / (last[0] - first[0]) : 0;
}

function drawRunning(row) {
  const words = [row.stage, row.device || "", row.engine || ""];
  const fps = measure(row);
  if (row.stage === "render" && row.units_total) words.push(say("frames", { done: row.units_done, total: row.units_total }));
  if (fps) words.push(say("fps_now", { fps: fps.toFixed(1) }));
  const left = row.eta_s ?? (fps ? (row.units_total - row.units_done) / fps : null);
  if (left !== null) words.push(say("left", { time: span(left) }));
  return make("li", {},
    make("div", { className: "line" }, named(row.name), button("cancel", act(`/jobs/${row.uid}/cancel`)), button("details", () => showJob(row.uid))),
    make("progress", { max: 100, value: row.percent, "aria-label": row.name }),
    make("p", { className: "dim", textContent: words.filter(Boolean).join(" · ") }));
}

function drawQueued(row) {
  return make("li", {},
    make("div", { className: "line" }, make("span", { className: "dim", textContent: row.position }), named(row.name),
      make("span", { className: "dim", textContent: stateName(row.state) }), button("cancel", act(`/jobs/${row.uid}/cancel`))),
    row.waiting_for ? make("p", { className: "warn", textContent: told(row, "waiting_for") }) : null);
}

function drawNow() {
  fill($("running"), sections.running || [], (row) => row.uid, drawRunning);
  fill($("queue"), sections.queue || [], (row) => row.uid, drawQueued);
  $("nothing").hidden = Boolean((sections.running || []).length + (sections.queue || []).length);
}

function drawFailures() {
  const rows = sections.failed || [];
  $("trouble").hidden = !rows.length;
  fill($("failures"), rows, (row) => row.uid, (row) => make("li", {},
    make("div", { className: "line" }, named(row.name), make("span", { className: "dim", textContent: clock(row.finished_at) }),
      button("retry", act(`/jobs/${row.uid}/retry`)), button("details", () => showJob(row.uid))),
    make("p", { className: row.state === "failed" ? "bad" : "dim", textContent: told(row, "error_message") || stateName(row.state) }),
    row.error_hint ? make("p", { textContent: told(row, "error_hint") }) : null));
}

function drawStrays() {
  const rows = sections.ignored || [];
  $("ignored").hidden = !rows.length;
  fill($("strays"), rows, (row) => row.name, (row) => make("li", {}, named(row.name),
    make("p", { className: "dim", textContent: `${told(row, "reason")}; ${told(row, "hint")}` })));
}

// Temperature, load and power, as far as the card tells them.
function drawGauges(row) {
  const known = [["temperature_c", "°C"], ["load_percent", "%"], ["power_w", "W"]].filter(([name]) => row[name] !== null && row[name] !== undefined);
  return known.length ? make("p", { className: "dim", textContent: known.map(([name, unit]) => `${row[name]} ${unit}`).join(" · ") }) : null;
}

function drawDevices() {
  fill($("tiles"), sections.devices || [], (row) => row.device, (row) => {
    const title = row.kind === "cuda" ? `${row.name} ${row.device.slice(0, 12)}` : row.device;
    const used = (row.total_mib - row.free_mib) / 1024;
    const inService = !["drained", "sick", "lost"].includes(row.state);
    return make("li", {},
      make("div", { className: "line" }, named(title), make("span", { className: inService ? "dim" : "bad", textContent: row.state })),
      row.job ? make("p", {}, named(row.job)) : null,
      row.total_mib ? make("progress", { max: row.total_mib, value: row.total_mib - row.free_mib, "aria-label": title }) : null,
      row.total_mib ? make("p", { className: "dim", textContent: say("memory", { used: used.toFixed(1), total: (row.total_mib / 1024).toFixed(1) }) }) : null,
      drawGauges(row),
      row.reason ? make("p", { className: "warn", textContent: told(row, "reason") }) : null,
      button(inService ? "drain" : "resume", act(`/devices/${encodeURIComponent(row.device)}/${inService ? "drain" : "resume"}`)));
  });
}

// the gallery -----------------------------------------------------------------------------------------------------------

let shown = [];
let isFiltered = false;
let hasMore = true;
let asking = 0;

function drawVideo(row, before) {
  const playing = before?.querySelector("video");
  const file = `/files/${row.uid}`;
  const screen = playing || make("button", { type: "button", className: "screen", "aria-label": say("play", { name: row.name }) },
    make("img", { src: `${file}/preview.jpg`, alt: "", loading: "lazy" }));
  if (!playing) screen.onclick = () => {
    const video = make("video", { src: `${file}/video`, controls: true, autoplay: true, className: "screen", poster: `${file}/preview.jpg` });
    video.onerror = () => announce(say("no_player", { name: row.name }), "bad");
    screen.replaceWith(video);
    video.focus();
  };
  const facts = say("made_by", { engine: row.engine, frames: row.frames, seconds: row.run_seconds ?? "?" });
  return make("li", {}, screen, make("div", { className: "text" },
    make("div", { className: "line" }, named(row.name)),
    make("p", { className: "dim", textContent: `${clock(row.finished_at)} · ${span(row.duration_s || 0)}` }),
    make("p", { className: "dim", textContent: facts }),
    make("p", { className: "row" },
      make("a", { href: `${file}/video?download`, textContent: say("download"), "aria-label": `${say("download")} ${row.name}` }),
      button("details", () => showJob(row.uid)))));
}

function drawGallery() {
  fill($("videos"), shown, (row) => row.uid, drawVideo);
  $("more").hidden = !hasMore;
  $("empty").hidden = Boolean(shown.length);
  $("empty").textContent = say(isFiltered ? "nothing_found" : "nothing_done");
}

function takeNewest() {
  if (isFiltered) return;
  const newest = sections.done || [];
  const known = new Set(newest.map((row) => row.uid));
  const oldest = newest.at(-1)?.finished_at ?? "";
  // Rows that the ledger has forgotten, or that are run again, are not kept among the newest.
  shown = [...newest, ...shown.filter((row) => !known.has(row.uid) && row.finished_at <= oldest)];
  if (shown.length === newest.length) hasMore = newest.length >= 24;
  drawGallery();
}

async function askJobs(extend) {
  const mine = ++asking;
  const query = new URLSearchParams({ state: "done", limit: PAGE_ROWS, q: $("search").value.trim(), day: $("day").value });
  if (extend && shown.length) query.set("before", shown.at(-1).finished_at);
  const answer = await fetch(`/jobs?${query}`);
  if (!answer.ok || mine !== asking) return;
  const rows = await answer.json();
  if (mine !== asking) return;
  const known = new Set(extend ? shown.map((row) => row.uid) : []);
  shown = [...(extend ? shown : []), ...rows.filter((row) => !known.has(row.uid))];
  hasMore = rows.length === PAGE_ROWS;
  drawGallery();
}

let typing = 0;
function search() {
  clearTimeout(typing);
  typing = setTimeout(() => {
    isFiltered = Boolean($("search").value.trim() || $("day").value);
    askJobs(false);
  }, 200);
}

async function showJob(uid) {
  const answer = await fetch(`/jobs/${uid}`);
  if (!answer.ok) return;
  const { row, events, record } = await answer.json();
  $("job-title").textContent = row.name;
  const pairs = Object.entries(row).filter(([name, value]) => value !== null && value !== "" && !name.endsWith("_zh"));
  const notes = (record?.notes || []).map((note) => make("p", { className: "warn", textContent: note }));
  const place = `${sections.head?.share ?? ""}/${row.state === "done" ? `outbox/${row.result}` : `failed/${row.name}`}`;
  $("job-body").replaceChildren(
    ...notes,
    row.error_message ? make("p", { className: "bad", textContent: told(row, "error_message") }) : "",
    row.error_hint ? make("p", { textContent: told(row, "error_hint") }) : "",
    make("p", { className: "row" }, make("code", { textContent: place }), button("copy_path", () => copy(place))),
    make("dl", {}, ...pairs.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: String(value) })])),
    make("h3", { textContent: say("events") }),
    make("pre", { textContent: events.map((event) => [clock(event.at), event.kind, event.device || "", event.detail.split("\n")[0]].filter(Boolean).join("  ")).join("\n") }));
  $("job").showModal();
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    announce(say("copied"));
  } catch {
    announce(say("copied_failed", { path: text }));
  }
}

// making a video ------------------------------------------------------------------------------------------------------

const basket = { faces: [], voices: [] };

function take(files) {
  for (const file of files) {
    const isFace = PICTURE.test(file.name) || VIDEO.test(file.name) || /^(image|video)\//.test(file.type);
    const isVoice = SOUND.test(file.name) || file.type.startsWith("audio/");
    if (isVoice) basket.voices.push(file);
    else if (isFace) basket.faces.push(file);
    else announce(say("unknown_kind", { name: file.name }), "bad");
  }
  drawBasket();
}

function drawThing(file, list) {
  const url = URL.createObjectURL(file);
  const tag = list === basket.voices ? "span" : VIDEO.test(file.name) ? "video" : "img";
  const picture = make(tag, tag === "span" ? { textContent: "♪" } : { src: url, alt: "", muted: true });
  return make("li", {}, picture, named(file.name), button("remove", () => {
    URL.revokeObjectURL(url);
    list.splice(list.indexOf(file), 1);
    drawBasket();
  }, { "aria-label": `${say("remove")} ${file.name}` }));
}

const stem = (name) => name.replace(/\.[^.]*$/, "").normalize("NFC").toLowerCase();

// Which face speaks which voice: by equal names, else one for all, else in their order.
function pair() {
  const chosen = $("library").value;
  const faces = basket.faces.length ? basket.faces : chosen ? [{ library: chosen, name: chosen }] : [];
  const { voices } = basket;
  if (!faces.length || !voices.length) return [];
  if (faces.length === 1) return voices.map((voice) => [faces[0], voice, voice.name]);
  if (voices.length === 1) return faces.map((face) => [face, voices[0], face.name]);
  const byName = new Map(faces.map((face) => [stem(face.name), face]));
  const left = faces.filter((face) => !voices.some((voice) => stem(voice.name) === stem(face.name)));
  return voices
    .map((voice) => [byName.get(stem(voice.name)) || left.shift(), voice, voice.name])
    .filter(([face]) => face);
}

function drawBasket() {
  $("basket").hidden = !(basket.faces.length + basket.voices.length);
  for (const kind of ["faces", "voices"]) $(kind).replaceChildren(...basket[kind].map((file) => drawThing(file, basket[kind])));
  const n = pair().length;
  $("start").disabled = !n;
  $("start").textContent = say(n > 1 ? "start_many" : "start", { n: n || 1 });
}

function drawLibrary() {
  const select = $("library");
  const before = select.value;
  const names = (sections.library || []).map((row) => row.name);
  select.replaceChildren(make("option", { value: "", textContent: say("none") }), ...names.map((name) => make("option", { value: name, textContent: name })));
  select.value = names.includes(before) ? before : "";
}

async function start() {
  const pairs = pair();
  if (!pairs.length) return announce(say("need_both"), "bad");
  $("start").disabled = true;
  try {
    const words = new Map();
    for (const file of new Set(pairs.flatMap(([face, voice]) => [face, voice]))) {
      words.set(file, file.library ? { library: file.library } : { upload: await upload(file) });
    }
    const output = {};
    for (const key of ["height", "crf"]) if ($(key).value) output[key] = Number($(key).value);
    const jobs = pairs.map(([face, voice, name]) => ({
      name: name.replace(/\.[^.]*$/, ""),
      avatar: words.get(face),
      audio: words.get(voice),
      engine: $("engine").value,
      priority: $("priority").value,
      ...($("fps").value ? { fps: Number($("fps").value) } : {}),
      ...(Object.keys(output).length ? { output } : {}),
    }));
    const made = await (await post("/jobs", { jobs })).json();
    announce(say("sent", { names: made.map((job) => job.name).join(", ") }), "good");
    basket.faces.length = basket.voices.length = 0;
  } catch (error) {
    announce(error.message, "bad");
  }
  drawBasket();
}

let recorder = null;
async function record() {
  if (recorder) return recorder.stop();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const parts = [];
    recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => {
      stream.getTracks().forEach((track) => track.stop());
      const suffix = recorder.mimeType.includes("mp4") ? "m4a" : recorder.mimeType.includes("ogg") ? "ogg" : "weba";
      take([new File(parts, `voice-${new Date().toISOString().slice(0, 19).replace(/:/g, "-")}.${suffix}`, { type: recorder.mimeType })]);
      recorder = null;
      $("record").textContent = say("record");
    };
    recorder.start();
    $("record").textContent = say("stop_record");
  } catch {
    recorder = null;
    announce(say("no_mic"), "bad");
  }
  return undefined;
}

// figures ---------------------------------------------------------------------------------------------------------------

function drawFigures() {
  const { hours = [], engines = [] } = sections.figures || {};
  const total = (key) => hours.reduce((sum, row) => sum + (row[key] || 0), 0);
  const figure = (value, key) => make("div", {}, make("b", { textContent: value }), " ", say(key));
  $("charts").replaceChildren(
    figure(total("done"), "jobs_done"), figure((total("video_seconds") / 60).toFixed(1), "video_time"), figure(total("failed"), "jobs_failed"),
    drawBars(hours), ...engines.filter((row) => row.frames_per_second).map((row) => make("p", { className: "dim", textContent: say("speed", { engine: row.engine, fps: row.frames_per_second }) })));
}

function drawBars(hours) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 240 60");
  svg.setAttribute("role", "img");
  const byHour = new Map(hours.map((row) => [String(row.hour).slice(0, 13), row.done]));
  const now = Date.now();
  const values = Array.from({ length: 24 }, (_, n) => byHour.get(new Date(now - (23 - n) * 3600e3).toISOString().slice(0, 13)) || 0);
  svg.setAttribute("aria-label", `${say("per_hour")}: ${values.join(", ")}`);
  const most = Math.max(1, ...values);
  values.forEach((value, n) => {
    const bar = document.createElementNS(space, "rect");
    const height = value ? Math.max(2, (58 * value) / most) : 1;
    for (const [name, size] of Object.entries({ x: n * 10 + 1, y: 60 - height, width: 8, height })) bar.setAttribute(name, size);
    if (!value) bar.setAttribute("class", "base");
    svg.append(bar);
  });
  return svg;
}

// the stream ------------------------------------------------------------------------------------------------------------

const DRAW = {
  head: [drawHead], counts: [drawHead], running: [drawNow], queue: [drawNow], done: [takeNewest], failed: [drawFailures],
  ignored: [drawStrays], devices: [drawDevices], figures: [drawFigures], library: [drawLibrary],
};

function connect() {
  source?.close();
  source = new EventSource("/live");
  for (const name of Object.keys(DRAW)) {
    source.addEventListener(name, (event) => {
      sections[name] = JSON.parse(event.data);
      DRAW[name].forEach((draw) => draw());
    });
  }
  source.onopen = () => {
    if (lostAt) announce(say("was_away", { from: clock(lostAt), to: clock(new Date()) }));
    lostAt = null;
    drawAlarms();
  };
  source.onerror = () => {
    lostAt = lostAt || new Date();
    drawAlarms();
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  };
}

function drawAll() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.querySelectorAll("[data-text]").forEach((node) => { if (node.id !== "record" || !recorder) node.textContent = say(node.dataset.text); });
  $("language").textContent = say("language");
  [drawHead, drawNow, drawFailures, drawStrays, drawDevices, drawGallery, drawFigures, drawLibrary, drawBasket].forEach((draw) => draw());
}

$("language").onclick = () => {
  language = language === "zh" ? "en" : "zh";
  localStorage.setItem("language", language);
  drawAll();
};
$("pick").onchange = () => { take($("pick").files); $("pick").value = ""; };
$("library").onchange = drawBasket;
$("start").onclick = start;
$("record").onclick = record;
$("search").oninput = search;
$("day").oninput = search;
$("more").onclick = () => askJobs(true);
$("job-close").onclick = () => $("job").close();
new IntersectionObserver((entries) => { if (entries[0].isIntersecting && !$("more").hidden) askJobs(true); }, { rootMargin: "600px" }).observe($("more"));
for (const type of ["dragenter", "dragover"]) document.addEventListener(type, (event) => { event.preventDefault(); document.body.classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  take(event.dataTransfer.files);
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { source?.close(); source = null; } else if (!source) connect();
});
drawAll();
connect();
