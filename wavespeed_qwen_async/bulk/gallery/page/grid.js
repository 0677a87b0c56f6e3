// All images in rows that fill the width. Only the rows near the screen exist as elements.
const grid = {
  shown: [],
  rows: [],
  rowOf: [],
  tiles: new Map(),
  current: 0,
  rowHeight: 220,
  caption: 46,
};

const layOut = () => {
  const width = $("grid").clientWidth;
  if (!width) return;
  const target = Math.min(grid.rowHeight, Math.max(90, width * 0.62));
  grid.width = width;
  grid.rows = [];
  grid.rowOf = new Array(grid.shown.length);
  let top = 0;
  for (let start = 0; start < grid.shown.length;) {
    const row = nextRow(start, width, target);
    row.top = top;
    for (let at = start; at < row.end; at += 1) grid.rowOf[at] = grid.rows.length;
    grid.rows.push(row);
    top += row.height + grid.caption + GRID_GAP;
    start = row.end;
  }
  $("grid").style.height = `${Math.max(0, top - GRID_GAP)}px`;
  for (const tile of grid.tiles.values()) tile.remove();
  grid.tiles.clear();
  draw();
};

// As many as fit at the target height; then the height at which they fill the row, unless it is the last one.
const nextRow = (start, width, target) => {
  const aspects = [];
  let sum = 0, end = start;
  while (end < grid.shown.length) {
    const aspect = aspectOf(grid.shown[end]);
    const room = width - GRID_GAP * aspects.length;
    if (aspects.length && (sum + aspect) * target - room > room - sum * target) break;
    aspects.push(aspect);
    sum += aspect;
    end += 1;
    if (sum * target >= width - GRID_GAP * (aspects.length - 1)) break;
  }
  const full = (width - GRID_GAP * (aspects.length - 1)) / sum;
  const height = end === grid.shown.length ? Math.min(full, target) : full;
  let left = 0;
  const boxes = aspects.map((aspect) => {
    const box = { left, width: aspect * height };
    left += box.width + GRID_GAP;
    return box;
  });
  return { start, end, height, boxes };
};

const rowAt = (y) => {
  let low = 0, high = grid.rows.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (grid.rows[middle].top <= y) low = middle; else high = middle - 1;
  }
  return low;
};

const draw = () => {
  const seen = $("grid").getBoundingClientRect();
  const screen = window.innerHeight;
  const wanted = new Set();
  if (grid.rows.length) {
    const last = rowAt(-seen.top + screen * 1.8);
    for (let number = rowAt(-seen.top - screen * 0.8); number <= last; number += 1) {
      for (let at = grid.rows[number].start; at < grid.rows[number].end; at += 1) wanted.add(at);
    }
    wanted.add(grid.current); // the focus must not fall out of the page
  }
  for (const [at, tile] of grid.tiles) {
    if (!wanted.has(at)) {
      tile.remove();
      grid.tiles.delete(at);
    }
  }
  const added = [...wanted].filter((at) => !grid.tiles.has(at)).sort((a, b) => a - b);
  for (const at of added) place(at);
};

// In the order of the images, so that a screen reader and Tab meet them so.
const place = (at) => {
  const tile = makeTile(grid.shown[at], at);
  const row = grid.rows[grid.rowOf[at]];
  const box = row.boxes[at - row.start];
  tile.style.width = `${box.width}px`;
  tile.style.transform = `translate(${box.left}px, ${row.top}px)`;
  tile.firstChild.style.height = `${row.height}px`;
  let before = null;
  for (const [other, node] of grid.tiles) {
    if (other > at && (before === null || other < Number(before.dataset.at))) before = node;
  }
  $("grid").insertBefore(tile, before);
  grid.tiles.set(at, tile);
};

const describe = (entry) =>
  [shows(entry) ? "" : `${STATUS[entry.status]}: ${reasonOf(entry)}`, entry.prompt || "No prompt", lorasOf(entry),
    entry.seed != null ? `seed ${entry.seed}` : ""].filter(Boolean).join(", ");

const makeTile = (entry, at) => {
  const stop = at === grid.current ? "0" : "-1";
  const open = make("button", { class: "open", type: "button", tabindex: stop, "aria-label": describe(entry) });
  if (shows(entry)) open.append(thumbnail(entry));
  else open.append(make("span", { class: "no" }, icon("alert"), make("b", { text: STATUS[entry.status] }),
    make("span", { class: "why", text: reasonOf(entry), dir: "auto" })));
  if (entry.before) open.append(make("span", { class: "badge", text: "Edit" }));
  const pick = shows(entry) && make("button", { class: "icon pick", type: "button", tabindex: stop,
    "aria-pressed": String(isPicked(entry)), "aria-label": "Compare this image", title: "Compare (c)" }, icon("compare"));
  const note = [lorasOf(entry), entry.seed != null ? `seed ${entry.seed}` : ""].filter(Boolean).join(" \u00b7 ");
  return make("div", { class: "tile", role: "listitem", "data-at": at, "aria-posinset": at + 1,
    "aria-setsize": grid.shown.length }, open, pick || null,
    make("div", { class: "caption", "aria-hidden": "true" }, make("span", { class: "prompt", text: entry.prompt, dir: "auto" }),
      make("span", { class: "note", text: note })));
};

const thumbnail = (entry) => {
  const image = make("img", { src: entry.thumb, alt: "", decoding: "async", draggable: "false" });
  image.addEventListener("load", () => image.classList.add("there"), { once: true });
  image.addEventListener("error", () => {
    if (image.src.endsWith(entry.url.slice(1))) image.classList.add("lost");
    else image.src = entry.url; // the thumbs are gone: the image itself will do
  });
  if (image.complete && image.naturalWidth) image.classList.add("there");
  return image;
};

const show = (found) => {
  grid.shown = found;
  grid.current = 0;
  $("count").textContent = `${found.length.toLocaleString("en")} of ${entries.length.toLocaleString("en")}`;
  $("empty").hidden = found.length > 0;
  layOut();
};

const bringToView = (at) => {
  const row = grid.rows[grid.rowOf[at]];
  if (!row) return;
  const top = $("grid").getBoundingClientRect().top + row.top;
  const head = $("top").getBoundingClientRect().bottom + 10;
  const foot = window.innerHeight - row.height - grid.caption - 10;
  if (top < head) window.scrollBy(0, top - head);
  else if (top > foot) window.scrollBy(0, Math.min(top - foot, top - head));
};

const focusOn = (at) => {
  if (!grid.shown.length) return;
  const next = Math.min(grid.shown.length - 1, Math.max(0, at));
  for (const control of grid.tiles.get(grid.current)?.querySelectorAll("button") ?? []) control.tabIndex = -1;
  grid.current = next;
  bringToView(next);
  draw();
  for (const control of grid.tiles.get(next).querySelectorAll("button")) control.tabIndex = 0;
  grid.tiles.get(next).firstChild.focus({ preventScroll: true });
};

const above = (steps) => {
  const number = grid.rowOf[grid.current];
  const row = grid.rows[number];
  const target = grid.rows[Math.min(grid.rows.length - 1, Math.max(0, number + steps))];
  const box = row.boxes[grid.current - row.start];
  const middle = box.left + box.width / 2;
  const distance = (other) => Math.abs(other.left + other.width / 2 - middle);
  const nearest = target.boxes.reduce((best, other, at) => (distance(other) < distance(target.boxes[best]) ? at : best), 0);
  return target.start + nearest;
};

const screenful = () => Math.max(1, Math.floor(window.innerHeight / (grid.rowHeight + grid.caption + GRID_GAP)));
const MOVES = {
  ArrowLeft: () => grid.current - 1,
  ArrowRight: () => grid.current + 1,
  ArrowUp: () => above(-1),
  ArrowDown: () => above(1),
  PageUp: () => above(-screenful()),
  PageDown: () => above(screenful()),
  Home: () => 0,
  End: () => grid.shown.length - 1,
};

const setUpGrid = () => {
  const host = $("grid");
  let due = false;
  const soon = () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => { due = false; draw(); });
  };
  window.addEventListener("scroll", soon, { passive: true });
  new ResizeObserver(() => { if (host.clientWidth !== grid.width) layOut(); }).observe(host);
  host.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    const at = Number(tile.dataset.at);
    if (event.target.closest(".pick")) togglePick(grid.shown[at]);
    else if (event.target.closest(".open")) openView(at);
  });
  host.addEventListener("keydown", (event) => {
    if (!MOVES[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    focusOn(MOVES[event.key]());
  });
  host.addEventListener("focusin", (event) => {
    const tile = event.target.closest(".tile");
    if (tile) grid.current = Number(tile.dataset.at);
  });
};
