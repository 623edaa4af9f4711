
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const { classes, tracks, shown } = data;
const times = data.times || shown;
const last = shown.length - 2; // the last frame; one more entry says when it ends
const start = times[0], span = times[last + 1] - start;
const get = (id) => document.getElementById(id);
const video = get("video"), box = get("box"), tip = get("tip"), timeline = get("timeline");

// Everything is made of elements and text nodes: no name can become markup.
function make(parent, tag, kind, text) {
  const node = document.createElement(tag);
  if (kind) node.className = kind;
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

function draw(parent, tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent.append(node);
  return node;
}

const number = (value) => value.toLocaleString("en");
const percent = (value) => (100 * value).toFixed(value < 0.1 ? 2 : 1) + " %";
const plural = (n, what) => `${number(n)} ${what}${n === 1 ? "" : "s"}`;

function clock(seconds) {
  const cs = Math.round(Math.abs(seconds) * 100), pad = (n) => String(n).padStart(2, "0");
  const h = Math.floor(cs / 360000), m = Math.floor(cs / 6000) % 60;
  const text = `${h ? h + ":" + pad(m) : m}:${pad(Math.floor(cs / 100) % 60)}.${pad(cs % 100)}`;
  return seconds < 0 ? "-" + text : text;
}

// The last entry of an ascending list that isn't above the value, as a frame.
function frameAt(list, value) {
  let low = 0, high = last;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (list[middle] <= value) low = middle; else high = middle - 1;
  }
  return low;
}

const across = (frame) => (times[frame] - start) / span; // 0 to 1; of the frame after the last, too

// ---- The video

let wanted = null; // where to be once the video has loaded

function seek(frame) {
  const at = Math.min(Math.max(frame, 0), last);
  wanted = (shown[at] + shown[at + 1]) / 2; // its middle, so that rounding can't show a neighbour
  video.currentTime = wanted;
  show();
}

function now() {
  return frameAt(shown, video.currentTime + 1e-6);
}

function show() {
  const frame = now();
  const part = (video.currentTime - shown[frame]) / (shown[frame + 1] - shown[frame]);
  const at = across(frame) + Math.min(Math.max(part, 0), 1) * (across(frame + 1) - across(frame));
  for (const head of document.querySelectorAll(".head")) {
    head.style.left = `calc(var(--label) + (100% - var(--label)) * ${at})`;
  }
  get("readout").textContent = `frame ${number(frame + 1)} of ${number(last + 1)}, ${clock(times[frame])}`;
  for (const chart of charts) chart.value.textContent = `now ${chart.format(valueAt(chart.steps, frame))}`;
  if (!box.hidden) frameBox(frame);
}

function play() {
  show();
  if (!video.paused && !video.ended) requestAnimationFrame(play);
}

video.addEventListener("play", play);
for (const event of ["seeking", "seeked", "timeupdate", "pause"]) video.addEventListener(event, show);
video.addEventListener("loadedmetadata", () => { if (wanted !== null) video.currentTime = wanted; });
video.addEventListener("error", () => {
  get("readout").className = "error";
  get("readout").textContent = "This browser can't play the video (H.264).";
});

// ---- Tracks

const keys = new Map(); // what a permalink calls each: its id, with its class where another has the same id
tracks.forEach((track, i) => {
  track.key = keys.has(String(track.id)) ? `${track.id}.${track.class}` : String(track.id);
  keys.set(track.key, i);
  track.first = track.runs[0][0];
  track.last = track.runs[track.runs.length - 1][1];
});
const nameOf = (track) => `${classes[track.class].name} ${track.id}`;
const pixels = data.size[0] * data.size[1];

function describe(track) {
  const lasts = track.runs.reduce((sum, [a, b]) => sum + times[b + 1] - times[a], 0);
  const gaps = track.runs.length > 1 ? `, in ${track.runs.length} parts` : "";
  return `${nameOf(track)}\n${clock(times[track.first])} to ${clock(times[track.last + 1])}, ` +
    `seen for ${lasts.toFixed(2)} s (${plural(track.frames, "frame")}${gaps})\n` +
    `largest: ${number(track.area)} pixels, ${percent(track.area / pixels)} of the picture`;
}

let selected = null, hiding = 0;
const rows = [];

function select(i, frame) {
  clear();
  selected = i;
  const track = tracks[i], row = rows[i], list = timeline.parentElement;
  row.setAttribute("aria-pressed", "true");
  focusable(row);
  const top = row.getBoundingClientRect().top - list.getBoundingClientRect().top;
  if (top < 24 || top > list.clientHeight - 20) list.scrollTop += top - list.clientHeight / 2;
  get("about").className = "";
  get("about").textContent = describe(track).replace("\n", ": ").replace("\n", "; ");
  seek(frame);
  box.hidden = false;
  frameBox(frame);
  hiding = setTimeout(() => { box.hidden = true; }, 2500);
  const link = "#track=" + track.key;
  if (location.hash !== link) history.replaceState(null, "", link);
}

function clear() {
  clearTimeout(hiding);
  box.hidden = true;
  if (selected !== null) rows[selected].setAttribute("aria-pressed", "false");
  selected = null;
  get("about").className = "hint";
  get("about").textContent = tracks.length ? "Choose a track to see where it is." : "";
}

// The kept boxes are some frames apart; between them the box moves evenly.
function frameBox(frame) {
  const run = tracks[selected].runs.find(([a, b]) => a <= frame && frame <= b);
  if (!run) { box.hidden = true; return; }
  const [a, b, boxes] = run, every = data.boxEvery, k = Math.floor((frame - a) / every);
  const from = boxes.slice(4 * k, 4 * k + 4), to = boxes.slice(4 * k + 4, 4 * k + 8);
  const gap = Math.min(every, b - a - k * every);
  const part = gap ? (frame - a - k * every) / gap : 0;
  const [x, y, w, h] = from.map((value, i) => value + part * ((to.length ? to[i] : value) - value));
  const size = { left: x / data.size[0], top: y / data.size[1], width: w / data.size[0], height: h / data.size[1] };
  for (const [side, value] of Object.entries(size)) box.style[side] = `${100 * value}%`;
}

// Where the pointer is in a lane, as a frame; null where there is no pointer, or it is left of the lane.
function pointed(event, lane) {
  const edge = lane.getBoundingClientRect();
  const at = (event.clientX - edge.left) / edge.width;
  return event.detail === 0 && event.type === "click" || at < 0 ? null : frameAt(times, start + at * span);
}

// The frame of a track that is nearest to one.
function nearest(track, frame) {
  let best = track.first;
  for (const [a, b] of track.runs) {
    const here = Math.min(Math.max(frame, a), b);
    if (Math.abs(here - frame) < Math.abs(best - frame)) best = here;
  }
  return best;
}

function swatch(parent, colors) {
  const node = make(parent, "span", "swatch");
  for (const color of colors) make(node, "i").style.background = color;
}

// What the overlay paints a class in: stuff its own colour, objects each their own.
function colorsOf(i) {
  const own = tracks.filter((t) => t.class === i).slice(0, 4).map((t) => t.color);
  return own.length ? own : [classes[i].color];
}

function axis(lanes) {
  const line = make(lanes, "div", "axis");
  const least = span / 6, power = 10 ** Math.floor(Math.log10(least));
  const step = least > 30 ? Math.ceil(least / 60) * 60 : [1, 2, 5, 10].map((n) => n * power).find((n) => n >= least);
  for (let k = 0; k * step < 0.95 * span; k++) {
    const text = clock(start + k * step);
    make(line, "span", "", step >= 1 ? text.slice(0, -3) : text).style.left = `${(100 * k * step) / span}%`;
  }
  make(lanes, "div", "head");
}

function drawTimeline() {
  axis(timeline);
  let group = -1;
  tracks.forEach((track, i) => {
    if (track.class !== group) {
      group = track.class;
      const title = make(timeline, "div", "group", classes[group].name);
      make(title, "span", "", plural(classes[group].tracks, "track"));
    }
    const row = make(timeline, "button", "row");
    row.type = "button";
    row.tabIndex = i ? -1 : 0;
    row.dataset.track = i;
    row.setAttribute("aria-pressed", "false");
    row.setAttribute("aria-label", describe(track));
    make(row, "span", "label", track.id);
    const lane = draw(row, "svg", { class: "lane", viewBox: "0 0 1000 10", preserveAspectRatio: "none" });
    const bars = track.runs.map(([a, b]) => {
      const left = 1000 * across(a), wide = Math.max(1000 * across(b + 1) - left, 2.5);
      return `M${left.toFixed(1)} 0h${wide.toFixed(1)}v10h-${wide.toFixed(1)}z`;
    });
    draw(lane, "path", { d: bars.join(""), fill: track.color });
    rows.push(row);
  });
  const left = data.hidden ? ` The ${number(tracks.length)} longest are shown, ${number(data.hidden)} are not.` : "";
  get("hint").textContent = tracks.length
    ? "Click a bar to go there, or use the arrow keys: up and down for tracks, left and right for frames, Enter " +
      "for a track's first frame." + left
    : "No object was found.";
}

function focusable(row) {
  for (const other of rows) if (other.tabIndex === 0) other.tabIndex = -1;
  row.tabIndex = 0;
}

timeline.addEventListener("click", (event) => {
  const row = event.target.closest(".row");
  if (!row) return;
  const track = tracks[row.dataset.track], frame = pointed(event, row.querySelector(".lane"));
  select(Number(row.dataset.track), frame === null ? track.first : nearest(track, frame));
});

timeline.addEventListener("keydown", (event) => {
  const at = rows.indexOf(document.activeElement);
  if (at < 0) return;
  const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -at, End: rows.length };
  if (event.key in moves) {
    const row = rows[Math.min(Math.max(at + moves[event.key], 0), rows.length - 1)];
    focusable(row);
    row.focus();
  } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    video.pause();
    seek(now() + (event.key === "ArrowLeft" ? -1 : 1));
  } else if (event.key === "Escape") {
    clear();
    hideTip();
  } else return;
  event.preventDefault();
});

// ---- Charts

const charts = [];

// A curve is [frame, value] wherever it changes.
function valueAt(steps, frame) {
  let low = 0, high = steps.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (steps[middle][0] <= frame) low = middle; else high = middle - 1;
  }
  return steps[low][1];
}

function drawCharts(id, thing, format) {
  const found = classes.map((c, i) => [c, i]).filter(([c]) => c.thing === thing && (!thing || c.tracks));
  get(id + "-section").hidden = !found.length;
  axis(get(id));
  for (const [c, i] of found) {
    const most = c.steps.reduce((max, [, value]) => Math.max(max, value), 0);
    const chart = make(get(id), "div", "chart"), label = make(chart, "span", "label");
    make(label, "b", "", c.name);
    const value = make(label, "span");
    make(label, "span", "", "max " + format(most));
    const lane = draw(chart, "svg", { class: "lane", viewBox: "0 0 1000 40", preserveAspectRatio: "none" });
    const y = (v) => (38 - (35 * v) / (most || 1)).toFixed(1);
    const line = c.steps.map(([t, v], k) => (k ? `H${(1000 * across(t)).toFixed(1)}V${y(v)}` : `M0 ${y(v)}`));
    const curve = line.join("") + "H1000";
    draw(lane, "path", { class: "area", d: curve + "V40H0z" });
    draw(lane, "path", { class: "curve", d: curve });
    lane.style.setProperty("--color", c.color);
    lane.dataset.chart = charts.length;
    charts.push({ steps: c.steps, format, value, name: c.name });
  }
  get(id).addEventListener("click", (event) => {
    const lane = event.target.closest("[data-chart]");
    if (lane) seek(pointed(event, lane));
  });
}

// ---- What the pointer is on

function say(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - tip.offsetWidth - 6))}px`;
  tip.style.top = `${y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 18}px`;
}

function hideTip() {
  tip.hidden = true;
}

document.addEventListener("pointermove", (event) => {
  const row = event.target.closest(".row"), lane = event.target.closest("[data-chart]");
  if (row) say(describe(tracks[row.dataset.track]), event.clientX, event.clientY);
  else if (lane) {
    const chart = charts[lane.dataset.chart], frame = pointed(event, lane);
    say(`${clock(times[frame])}: ${chart.name} ${chart.format(valueAt(chart.steps, frame))}`, event.clientX, event.clientY);
  } else hideTip();
});
document.addEventListener("focusin", (event) => {
  if (!event.target.matches(".row:focus-visible")) return;
  const edge = event.target.getBoundingClientRect();
  say(describe(tracks[event.target.dataset.track]), edge.left + 100, edge.top);
});
for (const event of ["focusout", "scroll"]) document.addEventListener(event, hideTip, true);

// ---- Figures

function table(id, heads, lines) {
  const node = get(id), top = make(node, "tr");
  for (const head of heads) make(top, "th", "", head).scope = "col";
  for (const line of lines) {
    const row = make(node, "tr");
    for (const fill of line) {
      const cell = make(row, "td");
      if (typeof fill === "function") fill(cell); else cell.textContent = fill;
    }
  }
  node.parentElement.hidden = !lines.length;
}

function drawFigures() {
  get("name").textContent = data.name;
  const total = tracks.length + data.hidden;
  const figures = [[number(last + 1), last ? "frames" : "frame"], [span.toFixed(2), "seconds"],
    [number(total), total === 1 ? "track" : "tracks"],
    [number(classes.length), classes.length === 1 ? "class" : "classes"]];
  for (const [value, what] of figures) {
    const item = make(get("figures"), "div");
    make(item, "dt", "", what);
    make(item, "dd", "", value);
  }
  const named = (i) => (cell) => {
    swatch(cell, colorsOf(i));
    cell.append(classes[i].name);
  };
  classes.forEach((c, i) => named(i)(make(get("legend"), "li")));
  if (tracks.length) make(get("legend"), "li", "note", "Each object has a colour of its own.");
  table("classes", ["class", "tracks", "of all pixels"],
    classes.map((c, i) => [named(i), c.thing ? number(c.tracks) : "", percent(c.share)]));
  const order = tracks.map((t, i) => i).sort((a, b) => tracks[b].frames - tracks[a].frames).slice(0, 10);
  table("longest", ["track", "frames", "from", "to"], order.map((i) => [
    (cell) => {
      swatch(cell, [tracks[i].color]);
      const button = make(cell, "button", "link", nameOf(tracks[i]));
      button.type = "button";
      button.addEventListener("click", () => select(i, tracks[i].first));
    },
    number(tracks[i].frames), clock(times[tracks[i].first]), clock(times[tracks[i].last + 1])]));
}

function follow() {
  const i = keys.get(decodeURIComponent(location.hash).replace("#track=", ""));
  if (i !== undefined && i !== selected) select(i, tracks[i].first);
}

get("screen").style.setProperty("--aspect", data.size[0] / data.size[1]);
drawFigures();
drawTimeline();
drawCharts("counts", true, number);
drawCharts("shares", false, percent);
clear();
show();
follow();
addEventListener("hashchange", follow);
