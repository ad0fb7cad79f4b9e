"use strict";
// The reader's desk. Every text of a collection becomes text of the page (textContent), never html.
const token = new URLSearchParams(location.search).get("token") || "";
const at = id => document.getElementById(id);
const percent = p => (p > 0.995 ? "over 99" : p < 0.005 ? "under 1" : Math.round(100 * p)) + "\u00a0%";
const now = { field: 0, n: null, list: null, object: null, links: null, maps: false, cells: [], words: [] };

async function ask(path, body) {
  const how = { headers: { "X-Desk-Token": token } };
  if (body) {
    how.method = "POST";
    how.headers["Content-Type"] = "application/json";
    how.body = JSON.stringify(body);
  }
  let found, ok = false;
  try {
    const reply = await fetch(path, how);
    found = await reply.json();
    ok = reply.ok;
  } catch (error) {
    found = { problem: "the desk does not answer: it was stopped, what was saved is kept" };
  }
  if (!ok) {
    say(found.problem, true);
    throw new Error(found.problem);
  }
  return found;
}

function say(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}

function made(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// ---- the list

function entryText(one) {
  const mark = one.decided ? "\u2713 " : one.doubt ? "? " : "";
  const said = one.decided || (one.label && one.label !== one.suggestion ? `${one.label} \u2192 ${one.suggestion}?` : one.suggestion);
  return `${mark}${one.id}: ${said}`;
}

async function openList() {
  now.list = await ask(`/api/collection?field=${now.field}`);
  at("title").textContent = `Reader's desk: ${now.list.title}`;
  document.title = `Reader's desk: ${now.list.title}`;
  at("about").textContent = now.list.about;
  at("field").replaceChildren(...now.list.fields.map((name, k) => made("option", name, { value: k })));
  at("field").value = now.field;
  at("field").hidden = at("field-label").hidden = now.list.fields.length < 2;
  at("objects").replaceChildren(...now.list.objects.map(one => made("option", entryText(one), { value: one.n })));
  at("classes").replaceChildren(...now.list.classes.map(name => made("option", "", { value: name })));
  counted();
}

function counted() {
  const done = now.list.objects.filter(one => one.decided).length;
  at("progress").textContent = `${done} of ${now.list.objects.length} objects have a label of a person`;
}

function place() {
  return now.list.objects.findIndex(one => one.n === now.n);
}

function step(by) {
  const next = now.list.objects[place() + by];
  if (next) openObject(next.n);
}

// ---- an object

async function openObject(n) {
  now.n = n;
  now.links = null;
  at("objects").value = n;
  const object = await ask(`/api/object?n=${n}&field=${now.field}`);
  if (now.n !== n) return;
  now.object = object;
  draw();
  const links = await ask(`/api/links?n=${n}&field=${now.field}`);
  if (now.n !== n) return;
  now.links = links;
  notes();
  relight();
  const next = now.list.objects[place() + 1];
  if (next) ask(`/api/links?n=${next.n}&field=${now.field}`).catch(() => {});  // it is then there
}

function draw() {
  const one = now.object;
  at("object").textContent = `Object ${one.id}`;
  at("picture").src = one.picture;
  at("picture").alt = `Picture of object ${one.id}, as the model reads it`;
  at("regions").style.gridTemplate = `repeat(${one.grid}, 1fr) / repeat(${one.grid}, 1fr)`;
  now.cells = Array.from({ length: one.grid ** 2 }, (_, k) => made("button", "", {
    "aria-label": `region, row ${Math.floor(k / one.grid) + 1}, column ${k % one.grid + 1}`,
  }));
  at("regions").replaceChildren(...now.cells);
  now.words = [];
  at("words").replaceChildren(...one.pieces.map(([text, k]) => {
    if (k < 0) return document.createTextNode(text);
    return now.words[k] = made("button", text);
  }));
  rove(now.cells, "region", one.grid);
  rove(now.words, "word", 0);
  at("detail").textContent = "";
  at("notes").replaceChildren(made("p", "Words and regions are being linked \u2026"));
  at("correct").value = "";
  at("similar").replaceChildren(...one.similar.map(near => {
    const item = made("li", ""), button = made("button", "");
    button.append(made("img", "", { src: near.picture, alt: "" }), made("span", `${near.id}: ${near.label || "no label"}`));
    button.addEventListener("click", () => openObject(near.n));
    item.append(button);
    return item;
  }));
  drawState();
}

function drawState() {
  const one = now.object, state = one.state, listed = now.list.objects[place()];
  const lines = one.lines.map(text => made("p", text));
  if (state.label) lines.push(made("p", `Label of ${state.label.who}: ${state.label.value}`, { class: "headline good" }));
  at("says").replaceChildren(...lines);
  at("accept").textContent = `Accept ${one.suggestion}`;
  at("keep").textContent = `Keep ${one.label}`;
  at("keep").hidden = !one.label || one.label === one.suggestion;
  at("comment").value = state.comment ? state.comment.value : "";
  now.words.forEach((word, k) => word.setAttribute("aria-pressed", state.words.includes(k)));
  now.cells.forEach((cell, k) => cell.setAttribute("aria-pressed", state.regions.includes(k)));
  if (!listed) return;
  listed.decided = state.label ? state.label.value : "";
  at("objects").options[place()].textContent = entryText(listed);
  counted();
}

// ---- links

function notes() {
  const links = now.links, maps = now.maps && links.maps;
  at("notes").replaceChildren(...(maps ? links.map_notes : links.notes).map(text => made("p", text)));
}

function light(elements, values, most) {
  elements.forEach((element, k) => {
    const lit = most > 0 && values ? values[k] / most : 0;
    element.style.setProperty("--lit", lit.toFixed(3));
    element.classList.toggle("lit", lit > 0.05);
  });
}

function show(kind, k) {
  dark();
  const own = (kind === "word" ? now.words : now.cells)[k], links = now.links;
  own.classList.add("own");
  now.lit = [kind, k];
  if (!links) return;
  const rows = now.maps && links.maps ? links.maps : links.link, most = Math.max(0, ...rows.flat());
  if (kind === "word") light(now.cells, rows[k], most);
  else light(now.words, now.words.map((_, i) => rows[i] ? rows[i][k] : 0), most);
  const p = kind === "word" ? links.no_word[k] : links.no_region[k];
  const what = kind === "word" ? `\u201c${own.textContent}\u201d` : "this region";
  at("detail").textContent = `${links.chosen}: ${percent(links.whole)}; without ${what} ${percent(p)}`;
}

function dark() {
  now.lit = null;
  for (const element of [...now.cells, ...now.words]) element.classList.remove("lit", "own");
}

function relight() {
  if (now.lit) show(...now.lit);
}

function rove(elements, kind, columns) {
  elements.forEach((element, k) => {
    element.tabIndex = k ? -1 : 0;
    element.addEventListener("mouseenter", () => show(kind, k));
    element.addEventListener("mouseleave", dark);
    element.addEventListener("focus", () => {
      elements.forEach(other => other.tabIndex = other === element ? 0 : -1);
      show(kind, k);
    });
    element.addEventListener("blur", dark);
    element.addEventListener("click", () => mark(kind, k));
    element.addEventListener("keydown", event => {
      const turn = kind === "word" && getComputedStyle(at("words")).direction === "rtl" ? -1 : 1;
      const by = { ArrowLeft: -turn, ArrowRight: turn, ArrowUp: -columns, ArrowDown: columns }[event.key];
      const to = elements[event.key === "Home" ? 0 : event.key === "End" ? elements.length - 1 : k + by];
      if (to) {
        event.preventDefault();
        to.focus();
      }
    });
  });
}

// ---- decisions

async function decide(action, value) {
  const one = now.object;
  if (!one || one.n !== now.n) return;  // another one is being opened: nobody has seen it
  one.state = await ask("/api/decide", { n: one.n, field: now.field, action, value });
  say(`Saved: ${action}, object ${one.id}`);
  const listed = now.list.objects.find(other => other.n === one.n);
  if (listed) listed.decided = one.state.label ? one.state.label.value : "";
  if (one === now.object) drawState();
}

function mark(kind, k) {
  const name = kind + "s", state = now.object.state, there = state[name];
  state[name] = there.includes(k) ? there.filter(one => one !== k) : [...there, k].sort((a, b) => a - b);
  return decide(name, state[name]);
}

async function undo() {
  const { undone } = await ask("/api/undo", {});
  if (undone && (undone.n !== null) && (undone.n !== now.n || undone.field !== now.field)) {
    now.field = undone.field;
    await openList();
    openObject(undone.n);
  } else if (undone) {
    now.object.state = undone.state;
    drawState();
  }
  say(undone ? `Undone: ${undone.action} of object ${undone.id}` : "There is nothing of yours to undo");
}

function switchMaps() {
  if (!now.links || !now.links.maps) return say("This model has no maps: there is one kind of link");
  now.maps = !now.maps;
  notes();
  relight();
}

const first = elements => (elements.find(one => one.tabIndex === 0) || { focus() {} }).focus();
const keys = {
  n: () => step(1), p: () => step(-1), o: () => at("objects").focus(), w: () => first(now.words),
  r: () => first(now.cells), a: () => at("accept").click(), k: () => at("keep").hidden || at("keep").click(),
  c: () => at("correct").focus(), m: () => at("comment").focus(), u: () => at("undo").click(), x: switchMaps,
};

document.addEventListener("keydown", event => {
  const typing = event.target === at("correct") || event.target === at("comment");
  if (event.key === "Escape") return at("objects").focus();
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !at("letters").checked || !keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
at("correct").addEventListener("keydown", event => {
  if (event.key === "Enter" && event.target.value.trim()) decide("correct", event.target.value).then(() => at("objects").focus());
});
at("comment").addEventListener("keydown", event => {
  if (event.key === "Enter" && event.ctrlKey) decide("comment", event.target.value).then(() => at("objects").focus());
});
at("accept").addEventListener("click", () => decide("accept"));
at("keep").addEventListener("click", () => decide("keep"));
at("undo").addEventListener("click", undo);
at("objects").addEventListener("change", event => openObject(Number(event.target.value)));
at("field").addEventListener("change", async event => {
  now.field = Number(event.target.value);
  await openList();
  openObject(now.n);
});
addEventListener("unhandledrejection", event => event.preventDefault());  // `ask` has said it
openList().then(() => {
  openObject(now.list.objects[0].n);
  at("objects").focus();
});
