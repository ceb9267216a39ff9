// The live page. Every text of others reaches the document as text, never as HTML.

const $ = (id) => document.getElementById(id);
const HEADERS = { "x-musedrop": "1" };
const PICTURE = /\.(jpe?g|jpe|jfif|png|apng|webp|bmp|dib|tiff?|gif|avif|hei[cf]|jp2|j2k|p[pgbna]m)$/i;
const VIDEO = /\.(mp4|mov|qt|mkv|webm|avi|m4v|ts|mts|m2ts?|mpe?g|vob|3g[p2]|wmv|asf|flv|ogv|mxf)$/i;
const SOUND = /\.(wav|mp3|m4a|aac|flac|ogg|opus|wma|aif[fc]?|amr|caf|e?ac3|au|snd|w64|wv|oga|mka|weba|m4b|m4r|bwf|txt)$/i;
const PAGE_ROWS = 60;

const OPTIONS = await (await fetch("/static/options.json")).json();
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
  if (body !== undefined) options.body = typeof body === "string" ? body : JSON.stringify(body);
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
      announce("");
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

const STATES = {
  running: "运行中", queued: "排队", waiting: "等待文件", done: "完成", failed: "失败", cancelled: "已取消",
  inspect: "检查", prepare: "准备", render: "渲染", assemble: "合成", publish: "发布",
  idle: "空闲", busy: "工作中", starting: "启动中", drained: "已停用", sick: "故障", lost: "丢失",
};

const stateName = (name) => (language === "en" ? name : STATES[name] || name);

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

const drawFace = (kind, src) => (kind ? make(kind === "video" ? "video" : "img", { src, alt: "", className: "thumb", muted: true, preload: "metadata", loading: "lazy" }) : null);

function drawRunning(row) {
  const words = [stateName(row.stage), row.device || "", row.engine || "", row.who];
  const fps = measure(row);
  if (row.stage === "render" && row.units_total) words.push(say("frames", { done: row.units_done, total: row.units_total }));
  if (fps) words.push(say("fps_now", { fps: fps.toFixed(1) }));
  const left = row.eta_s ?? (fps ? (row.units_total - row.units_done) / fps : null);
  if (left !== null) words.push(say("left", { time: span(left) }));
  return make("li", {},
    make("div", { className: "line" }, drawFace(row.face, `/files/${row.uid}/face`), named(row.name), row.first_part ? make("a", { href: `/files/${row.uid}/first`, target: "_blank", textContent: say("first_part") }) : "",
      button("cancel", act(`/jobs/${row.uid}/cancel`)), button("details", () => showJob(row.uid))),
    make("progress", { max: 100, value: row.percent, "aria-label": row.name }),
    make("p", { className: "dim", textContent: words.filter(Boolean).join(" · ") }));
}

const PRIORITIES = { 10: "high", 0: "normal", [-10]: "low" };

function drawPlace(row) {
  const now = row.priority >= 1e6 ? "front" : PRIORITIES[row.priority] || String(row.priority);
  const names = [...new Set(["front", "high", "normal", "low", now])];
  const select = make("select", { "aria-label": say("place", { name: row.name }) },
    ...names.map((name) => make("option", { value: name, textContent: texts[name] ? say(name) : name, selected: name === now })));
  select.onchange = (event) => act(`/jobs/${row.uid}/${select.value}`)(event);
  return select;
}

// When a queued job may start: after those before it, each as long as the last ones were, on as many devices as run now.
function drawStart(row) {
  const times = (sections.done || []).map((one) => one.run_seconds).filter(Boolean);
  const running = sections.running || [];
  if (row.state !== "queued" || !times.length || !running.length) return null;
  const usual = times.reduce((sum, one) => sum + one, 0) / times.length;
  const soonest = Math.min(...running.map((one) => one.eta_s ?? usual));
  return make("p", { className: "dim", textContent: say("starts", { time: span(soonest + (usual * (row.position - 1)) / running.length) }) });
}

function drawQueued(row) {
  return make("li", {},
    make("div", { className: "line" }, make("span", { className: "dim", textContent: row.position }), named(row.name),
      make("span", { className: "dim", textContent: [row.who, stateName(row.state)].filter(Boolean).join(" · ") }), drawPlace(row), button("cancel", act(`/jobs/${row.uid}/cancel`))),
    row.waiting_for ? make("p", { className: "warn", textContent: told(row, "waiting_for") }) : drawStart(row));
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
    make("div", { className: "line" }, named(row.name), make("span", { className: "dim", textContent: [row.who, clock(row.finished_at)].filter(Boolean).join(" · ") }),
      button("retry", act(`/jobs/${row.uid}/retry`)), button("edit", () => editJob(row)), button("details", () => showJob(row.uid))),
    make("p", { className: row.state === "failed" ? "bad" : "dim", textContent: told(row, "error_message") || stateName(row.state) }),
    row.error_hint ? make("p", { textContent: told(row, "error_hint") }) : null));
}

async function editJob(row) {
  const answer = await fetch(`/files/${row.uid}/job.json`);
  if (!answer.ok) return announce(told(await answer.json(), "error"), "bad");
  $("editor-text").value = await answer.text();
  $("editor-why").textContent = [told(row, "error_message"), told(row, "error_hint")].filter(Boolean).join(" — ");
  $("editor-said").textContent = "";
  $("editor-save").onclick = async () => {
    try {
      await post(`/jobs/${row.uid}/retry`, $("editor-text").value);
      $("editor").close();
    } catch (error) {
      $("editor-said").textContent = error.message;
    }
  };
  $("editor").showModal();
  return undefined;
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
      make("div", { className: "line" }, named(title), make("span", { className: inService ? "dim" : "bad", textContent: stateName(row.state) })),
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
  if (row.state !== "done") return drawEnded(row);
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
    make("p", { className: "dim", textContent: [clock(row.finished_at), span(row.duration_s || 0), row.who].filter(Boolean).join(" · ") }),
    make("p", { className: "dim", textContent: facts }),
    make("p", { className: "row" },
      make("a", { href: `${file}/video?download`, textContent: say("download"), "aria-label": `${say("download")} ${row.name}` }),
      button("again", () => useAgain(row), { "aria-label": `${say("again")}: ${row.name}` }), button("details", () => showJob(row.uid)))));
}

function drawEnded(row) {
  return make("li", {}, make("div", { className: "text" }, make("div", { className: "line" }, named(row.name)),
    make("p", { className: "dim", textContent: [stateName(row.state), clock(row.finished_at), row.who].filter(Boolean).join(" · ") }),
    make("p", { className: "bad", textContent: told(row, "error_message") || "" }),
    make("p", { className: "row" }, button("retry", act(`/jobs/${row.uid}/retry`)), button("details", () => showJob(row.uid)))));
}

function drawFilters() {
  fillSelect($("wanted"), ["done", "failed", "cancelled", "done,failed,cancelled"], (value) => (value.includes(",") ? say("anybody") : stateName(value)));
  const rows = sections.submitters || [];
  $("whose").hidden = rows.length < 2;
  const names = new Map(rows.map((row) => [row.submitter, row.who]));
  fillSelect($("submitter"), ["", ...names.keys()], (value) => names.get(value) || say("anybody"));
}

function fillSelect(select, values, label) {
  const before = select.value;
  select.replaceChildren(...values.map((value) => make("option", { value, textContent: label(value) })));
  select.value = values.includes(before) ? before : values[0];
}

// The first run is shown until there is a first video, and where the address ends in #setup.
let isSettingUp = false;
async function drawFirstRun() {
  const isNew = sections.counts && !sections.counts.done;
  const before = isSettingUp;
  isSettingUp = Boolean(isNew) || location.hash === "#setup";
  $("setup").hidden = !isSettingUp;
  if (isSettingUp || before) (await import("/static/setup.js")).drawSetup({ $, say, told, make, button, copy, take, announce });
}

function drawGallery() {
  fill($("videos"), shown, (row) => row.uid, drawVideo);
  $("more").hidden = !hasMore;
  $("empty").hidden = Boolean(shown.length);
  $("empty").textContent = say(isFiltered ? "nothing_found" : "nothing_done");
}

const mine = new Set();

function takeNewest() {
  const ready = (sections.done || []).filter((row) => mine.delete(row.id));
  if (ready.length) announce(say("ready", { name: ready.map((row) => row.name).join(", ") }), "good");
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
  const query = new URLSearchParams({ state: $("wanted").value, limit: PAGE_ROWS, q: $("search").value.trim(), day: $("day").value, submitter: $("submitter").value });
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
    isFiltered = Boolean($("search").value.trim() || $("day").value || $("submitter").value || $("wanted").value !== "done");
    askJobs(false);
  }, 200);
}

async function showJob(uid) {
  const answer = await fetch(`/jobs/${uid}`);
  if (!answer.ok) return;
  const { row, events, record } = await answer.json();
  $("job-title").textContent = row.name;
  const pairs = Object.entries(row).filter(([name, value]) => value !== null && value !== "" && !name.endsWith("_zh"));
  const notes = [...(record?.warnings || []), ...(record?.notes || [])].map((note) => make("p", { className: "warn", textContent: note }));
  const isDone = row.state === "done" && record;
  const values = { ...record, devices: (record?.devices || []).join(", "), seconds: row.run_seconds, fps: Math.round(100 * parseRate(record?.fps)) / 100 };
  const sheet = isDone ? make("img", { src: `/files/${row.uid}/contact.jpg`, alt: "" }) : "";
  if (sheet) sheet.onerror = () => sheet.remove();
  const place = `${sections.head?.share ?? ""}/${row.state === "done" ? `outbox/${row.result}` : `failed/${row.name}`}`;
  $("job-body").replaceChildren(
    isDone ? make("p", { textContent: say("made_words", values) }) : "",
    ...notes,
    row.error_message ? make("p", { className: "bad", textContent: told(row, "error_message") }) : "",
    row.error_hint ? make("p", { textContent: told(row, "error_hint") }) : "",
    make("p", { className: "row" }, make("code", { textContent: place }), button("copy_path", () => copy(place))),
    sheet,
    make("h3", { textContent: say("events") }),
    make("pre", { textContent: events.map((event) => [clock(event.at), event.kind, event.device || "", event.detail].filter(Boolean).join("  ")).join("\n") }),
    make("details", {}, make("summary", { textContent: say("everything") }),
      make("dl", {}, ...pairs.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: String(value) })]))));
  $("job").showModal();
}

const parseRate = (text) => { const [over, under = 1] = String(text ?? "").split("/"); return over / under; };

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
    else if (isFace) basket.faces.push(file), lookAt(file);
    else announce(say("unknown_kind", { name: file.name }), "bad");
  }
  drawBasket();
}

// Sends a file once; the word of the upload is what jobs name it by.
const send = (file) => (file.word ||= upload(file).catch((error) => { file.word = null; throw error; }));

const refer = async (face) => (face.library ? { library: face.library } : face.job ? { job: face.job } : { upload: await send(face) });

// Asks for a draft of a face: its still shows who will speak, before anything is queued.
async function lookAt(face) {
  if (sections.head?.absence || sections.head?.paused || looks.size > 20) return;
  try {
    const { options } = readOptions();
    face.draft = (await (await post("/drafts", { avatar: await refer(face), options })).json()).id;
    looks.set(face.draft, face);
    drawLooks();
  } catch (error) {
    announce(error.message, "bad");
  }
}

const looks = new Map();

function drawLooks() {
  for (const row of sections.drafts || []) {
    const face = looks.get(row.id);
    if (!face || !["done", "failed"].includes(row.state)) continue;
    looks.delete(row.id);
    face.still = row.state === "done" ? `/files/${row.uid}/preview.jpg` : "";
    face.wrong = row.state === "failed" ? [told(row, "error_message"), told(row, "error_hint")].filter(Boolean).join(": ") : "";
  }
  drawBasket();
}

function drawThing(file, list) {
  const isVoice = list === basket.voices;
  const tag = isVoice ? "span" : file.kind === "video" || VIDEO.test(file.name) ? "video" : "img";
  if (!isVoice && !file.url) file.url = file.size === undefined ? file.poster : URL.createObjectURL(file);
  const picture = file.still ? null : make(tag, isVoice ? { textContent: "♪" } : { src: file.url, alt: "", muted: true });
  const node = make("li", {}, picture, named(file.name),
    isVoice || !file.size ? null : button("keep", () => keep(file), { "aria-label": `${say("keep_long")}: ${file.name}`, title: say("keep_long") }),
    button("remove", () => {
      if (file.size) URL.revokeObjectURL(file.url);
      list.splice(list.indexOf(file), 1);
      drawBasket();
    }, { "aria-label": `${say("remove")} ${file.name}` }),
    file.still ? make("img", { className: "still", src: file.still, alt: say("still", { name: file.name }) }) : null,
    file.wrong ? make("p", { className: "bad", textContent: file.wrong }) : null,
    looks.has(file.draft) ? make("p", { className: "dim", textContent: say("looking") }) : null);
  return node;
}

async function keep(file) {
  const name = prompt(say("keep_as"), file.name.replace(/\.[^.]*$/, ""));
  if (!name) return;
  try {
    await post("/avatars", { upload: await upload(file), name });
    announce(say("kept", { name }), "good");
  } catch (error) {
    announce(error.message, "bad");
  }
}

function useAvatar(name) {
  const row = (sections.library || []).find((one) => one.name === name);
  if (!row) return;
  const face = { library: name, name, kind: row.kind, poster: row.kind ? `/avatars/${encodeURIComponent(name)}` : "" };
  basket.faces.push(face);
  lookAt(face);
  $("library").value = "";
  drawBasket();
}

function useAgain(row) {
  basket.faces.splice(0, basket.faces.length, { name: row.name, job: row.uid, poster: `/files/${row.uid}/preview.jpg` });
  drawBasket();
  announce(say("again_hint", { name: row.name }));
  $("make").scrollIntoView({ block: "start" });
  $("pick").focus();
}

const stem = (name) => name.replace(/\.[^.]*$/, "").normalize("NFC").toLowerCase();

// Which face speaks which voice: by equal names, else one for all, else in their order.
function pair() {
  const { faces, voices } = basket;
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
  const rows = sections.library || [];
  fillSelect($("library"), ["", ...rows.map((row) => row.name)], (name) => name || say("none"));
  $("shelf").hidden = !rows.length;
  fill($("avatars"), rows, (row) => row.name, (row) => make("li", {},
    row.kind ? make(row.kind === "video" ? "video" : "img", { src: `/avatars/${encodeURIComponent(row.name)}`, alt: "", muted: true, preload: "metadata", loading: "lazy" }) : null,
    make("div", {}, named(row.name)),
    button("use", () => useAvatar(row.name), { "aria-label": `${say("use")} ${row.name}` }),
    button("remove", async (event) => {
      if (confirm(say("forget_sure", { name: row.name }))) await act(`/avatars/${encodeURIComponent(row.name)}/forget`)(event);
    }, { "aria-label": `${say("forget")}: ${row.name}` })));
}

// The options of the job file, by the published schema: an empty field leaves the key out.
function drawOptions() {
  const known = new Map([...$("options").querySelectorAll("[name]")].map((field) => [field.name, field.value]));
  const fields = Object.entries(OPTIONS).map(([key, { values, description, ...limits }]) => {
    const field = values
      ? make("select", {}, ...["", ...values].map((value) => make("option", { value, textContent: value === "" ? say("standard") : texts[value] && key === "priority" ? say(value) : String(value) })))
      : make("input", key === "options" ? { type: "text", placeholder: '{"face": 1}' } : { type: "number", step: "any", ...limits });
    field.name = key;
    field.title = description;
    field.value = known.get(key) ?? "";
    return make("label", { className: key === "options" ? "wide" : "" }, make("span", { textContent: say(key === "options" ? "more_options" : key) }), field);
  });
  $("options").replaceChildren(...fields);
}

// Returns the keys that are set. Throws where a value is none.
function readOptions() {
  const job = {};
  for (const field of $("options").querySelectorAll("[name]")) {
    if (!field.value && field.validity.valid) continue;
    if (!field.checkValidity()) throw new Error(`${field.labels[0].textContent}: ${field.validationMessage}`);
    const { output, values } = OPTIONS[field.name];
    const value = field.name === "options" ? JSON.parse(field.value) : values ? (field.value === "true" ? true : field.value) : Number(field.value);
    if (output) (job.output ||= {})[field.name] = value;
    else job[field.name] = value;
  }
  return job;
}

async function start() {
  const pairs = pair();
  if (!pairs.length) return announce(say("need_both"), "bad");
  $("start").disabled = true;
  try {
    const options = readOptions();
    const words = new Map();
    for (const file of new Set(pairs.flatMap(([face, voice]) => [face, voice]))) words.set(file, await refer(file));
    const jobs = pairs.map(([face, voice, name]) => ({ name: name.replace(/\.[^.]*$/, ""), avatar: words.get(face), audio: words.get(voice), ...options }));
    const made = await (await post("/jobs", { jobs })).json();
    made.forEach((job) => mine.add(job.id));
    announce(say("sent", { names: made.map((job) => job.name).join(", ") }), "good");
    basket.faces.length = basket.voices.length = 0;
    looks.clear();
  } catch (error) {
    for (const file of [...basket.faces, ...basket.voices]) file.word = null;
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
  const { hours = [], engines = [], factor = [], use = {} } = sections.figures || {};
  const total = (key) => hours.reduce((sum, row) => sum + (row[key] || 0), 0);
  const figure = (value, key) => make("div", {}, make("b", { textContent: value }), " ", say(key));
  $("charts").replaceChildren(
    figure(total("done"), "jobs_done"), figure((total("video_seconds") / 60).toFixed(1), "video_time"), figure(total("failed"), "jobs_failed"),
    drawBars(countHours(hours), say("per_hour")),
    drawBars(factor.map((value) => value ?? 0), say("factor")),
    ...Object.entries(use).map(([device, values]) => drawBars(values, say("busy", { device: device.slice(0, 12), percent: Math.round((100 / 24) * values.reduce((sum, value) => sum + value, 0)) }), 1)),
    ...engines.filter((row) => row.frames_per_second).map((row) => make("p", { className: "dim", textContent: say("speed", { engine: row.engine, fps: row.frames_per_second }) })));
}

function countHours(hours) {
  const byHour = new Map(hours.map((row) => [String(row.hour).slice(0, 13), row.done]));
  return Array.from({ length: 24 }, (_, n) => byHour.get(new Date(Date.now() - (23 - n) * 3600e3).toISOString().slice(0, 13)) || 0);
}

// Draws a figure of 24 hours, the last one at the right; `full` is the value of a full bar.
function drawBars(values, caption, full = Math.max(...values) || 1) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 240 60");
  svg.setAttribute("role", "img");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-label", `${caption}: ${values.join(", ")}`);
  values.forEach((value, n) => {
    const bar = document.createElementNS(space, "rect");
    const height = value ? Math.max(2, (58 * value) / full) : 1;
    for (const [name, size] of Object.entries({ x: n * 10 + 1, y: 60 - height, width: 8, height })) bar.setAttribute(name, size);
    if (!value) bar.setAttribute("class", "base");
    svg.append(bar);
  });
  return make("figure", {}, svg, make("figcaption", { textContent: `${caption}${full === 1 && caption.includes("%") ? "" : ` (≤ ${full})`}` }));
}

// the stream ------------------------------------------------------------------------------------------------------------

const DRAW = {
  head: [drawHead, drawFirstRun], counts: [drawHead, drawFirstRun], running: [drawNow], queue: [drawNow], done: [takeNewest], failed: [drawFailures],
  ignored: [drawStrays], devices: [drawDevices], figures: [drawFigures], library: [drawLibrary],
  drafts: [drawLooks], submitters: [drawFilters],
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
  drawOptions();
  [drawFilters, drawHead, drawNow, drawFailures, drawStrays, drawDevices, drawGallery, drawFigures, drawLibrary, drawBasket, drawFirstRun].forEach((draw) => draw());
}

$("language").onclick = () => {
  language = language === "zh" ? "en" : "zh";
  localStorage.setItem("language", language);
  drawAll();
};
$("pick").onchange = () => { take($("pick").files); $("pick").value = ""; };
$("library").onchange = () => useAvatar($("library").value);
$("options").onchange = (event) => { if (event.target.name === "options") basket.faces.filter((face) => !face.job).forEach(lookAt); };
$("editor-close").onclick = () => $("editor").close();
$("wanted").onchange = $("submitter").onchange = search;
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
window.addEventListener("hashchange", drawFirstRun);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { source?.close(); source = null; } else if (!source) connect();
});
drawAll();
connect();
