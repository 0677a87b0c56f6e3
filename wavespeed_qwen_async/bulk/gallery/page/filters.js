// What is shown, and in which order.
const NONE = "none"; // a path has a slash
const ORDERS = {
  source: ["As asked for", (a, b) => a.index - b.index],
  newest: ["Newest first", (a, b) => (b.created ?? -Infinity) - (a.created ?? -Infinity)],
  oldest: ["Oldest first", (a, b) => (a.created ?? Infinity) - (b.created ?? Infinity)],
  dearest: ["Highest cost", (a, b) => (b.price ?? -1) - (a.price ?? -1)],
  cheapest: ["Lowest cost", (a, b) => (a.price ?? Infinity) - (b.price ?? Infinity)],
  slowest: ["Slowest first", (a, b) => (b.seconds ?? -1) - (a.seconds ?? -1)],
};

const tally = (values) => {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
};

const fill = (select, choices) =>
  select.replaceChildren(...choices.map(([value, text]) => make("option", { value, text })));

const haystack = (entry) => {
  entry.hay ??= [entry.prompt, entry.file, entry.error, entry.kind, entry.id, entry.sources.join(" "), lorasOf(entry)]
    .join("\n").toLowerCase();
  return entry.hay;
};

const setUpFilters = (changed) => {
  const status = tally(entries.map((entry) => entry.status));
  fill($("status"), [["", `All (${entries.length.toLocaleString("en")})`],
    ...Object.keys(STATUS).filter((name) => status.get(name)).map((name) => [name, `${STATUS[name]} (${status.get(name)})`]),
    ...(entries.some((entry) => entry.before) ? [["edit", "With its source image"]] : [])]);
  $("statusLabel").hidden = $("status").length < 3;

  const loras = tally(entries.flatMap((entry) => [...new Set(entry.loras.map((lora) => lora.path))]));
  const without = entries.filter((entry) => !entry.loras.length).length;
  fill($("lora"), [["", "Any"], ...(without ? [[NONE, `None (${without})`]] : []),
    ...[...loras].sort((a, b) => b[1] - a[1]).map(([path, count]) => [path, `${shortLora(path)} (${count})`])]);
  $("loraLabel").hidden = !loras.size;

  const models = tally(entries.map((entry) => entry.model));
  fill($("model"), [["", "Any"], ...[...models].filter(([name]) => name).map(([name, count]) => [name, `${name} (${count})`])]);
  $("modelLabel").hidden = models.size < 2;

  const seeds = [...tally(entries.map((entry) => entry.seed).filter((seed) => seed != null))];
  $("seeds").append(...seeds.sort((a, b) => b[1] - a[1]).slice(0, 100).map(([value]) => make("option", { value })));

  fill($("order"), Object.entries(ORDERS).map(([value, [text]]) => [value, text]));
  const fields = ["text", "status", "lora", "model", "seed"];
  let timer = 0;
  for (const name of [...fields, "order"]) {
    $(name).addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(changed, name === "text" || name === "seed" ? 90 : 0);
    });
  }
  const clear = () => {
    fields.forEach((name) => { $(name).value = ""; });
    changed();
    $("text").focus();
  };
  $("clear").addEventListener("click", clear);
  $("empty").querySelector("button").addEventListener("click", clear);
};

const chosen = () => {
  const words = $("text").value.toLowerCase().split(/\s+/).filter(Boolean);
  const status = $("status").value, lora = $("lora").value, model = $("model").value, seed = $("seed").value.trim();
  const tests = [];
  if (words.length) tests.push((entry) => words.every((word) => haystack(entry).includes(word)));
  if (status) tests.push(status === "edit" ? (entry) => entry.before : (entry) => entry.status === status);
  if (lora) tests.push(lora === NONE ? (entry) => !entry.loras.length : (entry) => entry.loras.some((it) => it.path === lora));
  if (model) tests.push((entry) => entry.model === model);
  if (seed) tests.push((entry) => String(entry.seed) === seed);
  $("found").hidden = !tests.length;
  $("more").classList.toggle("on", tests.length > (words.length ? 1 : 0));
  const found = tests.length ? entries.filter((entry) => tests.every((test) => test(entry))) : [...entries];
  const order = $("order").value;
  return found.sort((a, b) => ORDERS[order][1](a, b) || a.place - b.place);
};
