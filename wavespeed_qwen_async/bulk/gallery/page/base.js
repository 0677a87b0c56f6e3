// What all parts need: the data, elements, words for figures.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const GRID_GAP = 14;

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (name === "class") node.className = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
};

const icon = (name) => {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
};

const shortLora = (path) =>
  path.includes("://") ? decodeSafely(path.split(/[?#]/)[0].split("/").pop()).replace(/\.safetensors$/i, "") || path : path;

const decodeSafely = (text) => {
  try { return decodeURIComponent(text); } catch { return text; }
};

const money = (value) => "$" + (Math.round(value * 1e6) / 1e6).toFixed(Math.round(value * 1e6) % 10000 ? 3 : 2);
const seconds = (value) => (value < 90 ? `${value.toFixed(1)} s` : `${Math.round(value / 60)} min`);
const many = (count, one, several = one + "s") => `${count.toLocaleString("en")} ${count === 1 ? one : several}`;
const moment = (ms) => new Date(ms).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

const STATUS = { saved: "Saved", failed: "Failed", unknown: "Perhaps paid", missing: "File is gone" };
const BILLED = { no: "Not billed", yes: "Billed", refunded: "Billed, to be refunded", unknown: "Perhaps billed" };

const entries = data.items.map((item, place) => ({
  place,
  index: item.i ?? 0,
  status: item.s ?? "failed",
  file: item.f ?? "",
  url: item.u,
  thumb: item.t ?? item.u,
  before: item.b,
  width: item.w ?? 0,
  height: item.h ?? 0,
  prompt: data.prompts[item.p] ?? "",
  model: item.m ?? "",
  loras: (item.l ?? []).map(([lora, scale]) => ({ path: data.loras[lora], scale })),
  seed: item.d,
  size: item.z ?? "",
  format: item.o ?? "",
  sources: item.r ?? [],
  price: item.c,
  seconds: item.n,
  created: item.a,
  id: item.q ?? "",
  error: item.e ?? "",
  kind: item.k ?? "",
  billed: item.g ?? "",
}));

const shows = (entry) => entry.status === "saved" && Boolean(entry.url);
const reasonOf = (entry) =>
  entry.error || (entry.status === "missing" ? "The file is no longer in the folder." : "No reason is told.");

const aspectOf = (entry) => {
  let ratio = entry.width / entry.height;
  if (!ratio) {
    const [width, height] = entry.size.split(/[*x]/).map(Number);
    ratio = width / height;
  }
  return Number.isFinite(ratio) && ratio > 0 ? Math.min(3, Math.max(0.45, ratio)) : 1;
};

const lorasOf = (entry) => entry.loras.map((lora) => `${shortLora(lora.path)} \u00d7${lora.scale}`).join(", ");

const quote = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);

// The command that makes the image again, for a POSIX shell.
const commandOf = (entry) => {
  const edits = entry.model.startsWith("edit") || entry.sources.length > 0;
  const words = ["wavespeed-qwen", edits ? "edit" : "generate"];
  const option = (name, value) => words.push(name, quote(String(value)));
  const usual = edits ? "edit-lora" : "text-to-image-lora";
  if (entry.model && entry.model !== usual) option("--model", entry.model);
  entry.loras.forEach((lora) => option("--lora", `${lora.path}:${lora.scale}`));
  if (entry.seed != null && entry.seed >= 0) option("--seed", entry.seed);
  if (entry.size) option("--size", entry.size.replace("*", "x"));
  if (entry.format) option("--format", entry.format);
  entry.sources.slice(1).forEach((source) => option("--image", source));
  const given = edits ? [entry.sources[0] ?? "SOURCE", entry.prompt] : [entry.prompt];
  if (given.some((word) => word.startsWith("-"))) words.push("--");
  return [...words, ...given.map(quote)].join(" ");
};

let toastTimer = 0;
const toast = (text) => {
  (document.querySelector("dialog[open]") ?? document.body).append($("toast")); // what is behind a dialog is not seen
  $("toast").textContent = text;
  $("toast").classList.add("on");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => $("toast").classList.remove("on"), 1800);
};

const copy = async (text, what) => {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // an older browser, or a page from disk that may not
    const area = make("textarea", { class: "sr" });
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast(`${what} copied`);
};

const remembered = (name, value) => {
  try {
    if (value === undefined) return localStorage.getItem(`wavespeed-gallery-${name}`);
    localStorage.setItem(`wavespeed-gallery-${name}`, value);
  } catch { /* a browser that remembers nothing for pages from disk */ }
  return null;
};
