"use strict";
// A blinded sheet. It knows the images and their numbers, not which are real; it sends nothing.
const sheet = JSON.parse(document.getElementById("sheet").textContent);
const at = id => document.getElementById(id);
const STORE = `vbg-sheet-${sheet.id}`;
const COLUMNS = ["sheet", "rater", "item", "place", "answer", "confidence", "seconds", "time", "comment"];
const now = { rater: "", order: [], k: 0, items: {}, since: 0, kept: true, saved: true };

// ---- what is kept in the browser

function keep() {
  try {
    localStorage.setItem(`${STORE}-${now.rater}`, JSON.stringify({ k: now.k, items: now.items, saved: now.saved }));
    localStorage.setItem(STORE, now.rater);
    now.kept = true;
  } catch (error) {
    now.kept = false;
  }
}

function kept(rater) {
  try {
    const found = JSON.parse(localStorage.getItem(`${STORE}-${rater}`));
    return found && typeof found.items === "object" ? found : null;
  } catch (error) {
    return null;
  }
}

// ---- each person has an order of their own, the same after a reload

function mixed(text) {
  let h = 2166136261;
  for (const sign of text) h = Math.imul(h ^ sign.codePointAt(0), 16777619);
  h = Math.imul(h ^ (h >>> 16), 2246822507);
  h = Math.imul(h ^ (h >>> 13), 3266489909);
  return (h ^ (h >>> 16)) >>> 0;
}

function orderOf(rater) {
  const keys = sheet.images.map((_, item) => mixed(`${item}/${rater}/${sheet.id}`));
  return keys.map((_, item) => item).sort((a, b) => keys[a] - keys[b] || a - b);
}

// ---- one image

const item = () => now.order[now.k];
const entry = () => now.items[item()] || (now.items[item()] = { looked: 0 });
const answered = () => now.order.filter(i => now.items[i] && now.items[i].answer).length;

function looked() {
  if (now.since) entry().looked += (performance.now() - now.since) / 1000;
  now.since = document.hidden ? 0 : performance.now();
}

function show(k) {
  if (k < 0 || k >= now.order.length) return;
  looked();
  now.k = k;
  at("image").src = sheet.images[item()];
  at("image").alt = `Image ${k + 1}, to be judged by sight`;
  at("place").textContent = `Image ${k + 1} of ${now.order.length}`;
  at("comment").value = entry().comment || "";
  keep();
  draw();
}

function draw() {
  const one = entry(), count = answered(), all = now.order.length;
  for (const name of ["real", "generated"]) at(name).setAttribute("aria-pressed", one.answer === name);
  [...at("levels").children].forEach((button, k) => button.setAttribute("aria-pressed", one.confidence === k + 1));
  at("back").disabled = now.k === 0;
  at("next").disabled = now.k === all - 1;
  at("open").hidden = count === all;
  at("done").textContent = `${count} of ${all} answered`;
  say(count < all ? "" : now.saved ? "All are answered and saved. Please send the file back."
    : "All are answered. Please save your answers and send the file back.");
}

function say(text) {
  const warning = now.kept ? "" : "This browser keeps nothing: save your answers before you close or reload the page. ";
  at("status").textContent = warning + text;
  at("status").classList.toggle("warn", !now.kept);
}

function change(values) {
  Object.assign(entry(), values);
  now.saved = false;
  keep();
  draw();
}

function answer(name) {
  looked();
  change({ answer: name, seconds: Math.round(10 * entry().looked) / 10, time: new Date().toISOString() });
}

function nextOpen() {
  const turn = now.order.map((_, k) => (now.k + 1 + k) % now.order.length);
  const k = turn.find(place => !(now.items[now.order[place]] || {}).answer);
  if (k !== undefined) show(k);
}

// ---- the file

function cell(value) {
  const text = String(value === undefined ? "" : value);
  const safe = /^[=+\-@\uFF1D\uFF0B\uFF0D\uFF20\t\r\n]/.test(text) ? `'${text}` : text;
  return /[",;\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function csv() {
  const lines = now.order.map((i, k) => [k, i, now.items[i]]).filter(([, , one]) => one && one.answer)
    .map(([k, i, one]) => [sheet.id, now.rater, i + 1, k + 1, one.answer, one.confidence, one.seconds, one.time, one.comment]);
  return "\uFEFF" + [COLUMNS, ...lines].map(line => line.map(cell).join(",") + "\r\n").join("");
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv;charset=utf-8" }));
  link.download = `answers-${sheet.id}-${now.rater}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  now.saved = true;
  keep();
  draw();
  const open = now.order.length - answered();
  say(`Saved as ${link.download}${open ? `; ${open} images have no answer yet` : ". Please send the file back"}.`);
}

// ---- begin and leave

function begin(rater) {
  const found = kept(rater) || { k: 0, items: {}, saved: true };
  Object.assign(now, { rater, order: orderOf(rater), k: 0, items: found.items, saved: found.saved, since: 0 });
  at("start").hidden = true;
  at("judge").hidden = false;
  show(Math.min(found.k, now.order.length - 1));
  at("place").focus();
}

function leave() {
  looked();
  keep();
  now.since = 0;
  try {
    localStorage.removeItem(STORE);
  } catch (error) {
    now.kept = false;
  }
  at("judge").hidden = true;
  at("start").hidden = false;
  at("rater").value = "";
  at("kept").textContent = now.kept ? `The answers of ${now.rater} are kept in this browser.` : "";
  at("rater").focus();
}

at("levels").append(...[1, 2, 3, 4, 5].map(level => {
  const button = document.createElement("button");
  button.textContent = level;
  button.setAttribute("aria-label", `${level} of 5`);
  button.addEventListener("click", () => change({ confidence: entry().confidence === level ? undefined : level }));
  return button;
}));
const keys = {
  r: () => answer("real"), g: () => answer("generated"), s: save, c: () => at("comment").focus(),
  ArrowLeft: () => show(now.k - 1), ArrowRight: () => show(now.k + 1),
};
document.addEventListener("keydown", event => {
  if (at("judge").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === at("comment")) return void (event.key === "Escape" && at("place").focus());
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key.length === 1 && !at("letters").checked) return;
  if ("12345".includes(key)) at("levels").children[key - 1].click();
  else if (keys[key]) keys[key]();
  else return;
  event.preventDefault();
});
for (const name of ["real", "generated"]) at(name).addEventListener("click", () => answer(name));
at("back").addEventListener("click", () => show(now.k - 1));
at("next").addEventListener("click", () => show(now.k + 1));
at("open").addEventListener("click", nextOpen);
at("save").addEventListener("click", save);
at("leave").addEventListener("click", leave);
at("comment").addEventListener("input", event => change({ comment: event.target.value }));
at("enter").addEventListener("submit", event => {
  event.preventDefault();
  begin(at("rater").value.trim());
});
document.addEventListener("visibilitychange", () => now.rater && !at("judge").hidden && (looked(), keep()));
addEventListener("pagehide", () => now.rater && !at("judge").hidden && (looked(), keep()));
addEventListener("beforeunload", event => {
  if (!now.kept && !now.saved) event.preventDefault();
});
at("count").textContent = sheet.images.length;
let last = "";
try {
  last = localStorage.getItem(STORE) || "";
} catch (error) {
  at("kept").textContent = "This browser keeps nothing: save your answers before you close or reload the page.";
}
if (last) begin(last);
else at("rater").focus();
