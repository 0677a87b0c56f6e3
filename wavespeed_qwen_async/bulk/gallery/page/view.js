// One image, large, with all that is known of it.
const view = { at: 0, split: false, zoomed: false };
const viewed = () => grid.shown[view.at];

const openView = (at) => {
  view.at = at;
  grid.current = at;
  if (!$("view").open) $("view").showModal();
  document.documentElement.classList.add("covered");
  drawView();
  $("viewTitle").focus({ preventScroll: true });
};

const step = (by) => {
  const next = view.at + by;
  if (next < 0 || next >= grid.shown.length) return;
  view.at = next;
  drawView();
};

const drawView = () => {
  const entry = viewed();
  view.zoomed = false;
  $("place").textContent = `${(view.at + 1).toLocaleString("en")} of ${grid.shown.length.toLocaleString("en")}`;
  $("prev").disabled = view.at === 0;
  $("next").disabled = view.at === grid.shown.length - 1;
  $("viewTitle").textContent = entry.prompt || "No prompt";
  $("viewTitle").classList.toggle("long", entry.prompt.length > 240);
  const there = shows(entry);
  $("split").hidden = !(there && entry.before);
  $("zoom").hidden = $("pick").hidden = $("original").hidden = !there;
  if (there) $("original").href = entry.url; else $("original").removeAttribute("href");
  $("copyPrompt").disabled = $("copyCommand").disabled = !entry.prompt;
  drawReason(entry);
  drawFacts(entry);
  drawStage();
  for (const by of [1, -1]) { // so that the next one is there at once
    const near = grid.shown[view.at + by];
    if (near && shows(near)) new Image().src = near.url;
  }
};

const drawReason = (entry) => {
  $("reason").hidden = shows(entry);
  if (shows(entry)) return;
  const refunded = entry.billed === "yes" && entry.price === 0; // as bulk/_reports.py tells of failed tasks
  const money = BILLED[refunded ? "refunded" : entry.billed];
  $("reason").replaceChildren(make("b", { text: [STATUS[entry.status], entry.kind].filter(Boolean).join(" \u00b7 ") }),
    make("p", { text: reasonOf(entry), dir: "auto" }), ...(money ? [make("p", { class: "faint", text: money })] : []));
};

const facts = (entry) => [
  ["LoRA", entry.loras.map((lora) => `${lora.path} \u00d7${lora.scale}`)],
  ["Seed", entry.seed != null ? String(entry.seed) : ""],
  ["Size", entry.width ? `${entry.width} \u00d7 ${entry.height}` : entry.size.replace("*", " \u00d7 ")],
  ["Model", entry.model],
  ["Source", entry.sources],
  ["Cost", entry.price != null ? money(entry.price) : ""],
  ["Took", entry.seconds ? seconds(entry.seconds) : ""],
  ["Made", entry.created != null ? moment(entry.created) : ""],
  ["File", entry.file],
  ["Prediction", entry.id],
  ["Job", `${entry.index + 1}`],
];

const drawFacts = (entry) => {
  const rows = facts(entry).filter(([, value]) => value.length);
  $("facts").replaceChildren(...rows.map(([name, value]) => make("div", {}, make("dt", { text: name }),
    ...[value].flat().map((text) => make("dd", { text, dir: "auto" })))));
};

const drawStage = () => {
  const entry = viewed();
  const stage = $("stage"), frame = $("frame");
  if (!shows(entry)) {
    frame.replaceChildren(make("div", { class: "no large" }, icon("alert"), make("b", { text: STATUS[entry.status] })));
    stage.classList.remove("zoomed", "splitting");
    return;
  }
  const split = view.split && entry.before;
  const canvas = split
    ? makeSlider({ url: entry.before, label: "Before" }, { url: entry.url, label: "After" })
    : make("div", { class: "canvas" }, largeImage(entry));
  frame.replaceChildren(canvas);
  $("split").setAttribute("aria-pressed", String(Boolean(split)));
  $("pick").setAttribute("aria-pressed", String(isPicked(entry)));
  stage.classList.toggle("splitting", Boolean(split));
  sizeStage();
};

const largeImage = (entry) => {
  const image = make("img", { src: entry.url, alt: entry.prompt, draggable: "false" });
  const arrived = () => {
    image.classList.add("there");
    if (!entry.width) {
      [entry.width, entry.height] = [image.naturalWidth, image.naturalHeight];
      sizeStage();
    }
  };
  if (image.complete && image.naturalWidth) arrived(); else image.addEventListener("load", arrived, { once: true });
  return image;
};

const sizeStage = () => {
  const entry = viewed(), canvas = $("frame").firstChild;
  if (!canvas?.classList.contains("canvas")) return;
  const aspect = entry.width / entry.height || aspectOf(entry);
  const box = fitted($("frame"), aspect);
  const scale = window.devicePixelRatio || 1;
  const size = view.zoomed ? { width: Math.max(entry.width / scale, box.width * 1.6) } : box;
  canvas.style.width = `${size.width}px`;
  canvas.style.height = `${size.width / aspect}px`;
  $("stage").classList.toggle("zoomed", view.zoomed);
  $("zoom").setAttribute("aria-pressed", String(view.zoomed));
};

const toggleSplit = () => {
  if (!viewed().before || !shows(viewed())) return;
  view.split = !view.split;
  drawStage();
  if (view.split) $("frame").querySelector(".edge").focus({ preventScroll: true });
};

const toggleZoom = (event) => {
  if (!shows(viewed())) return;
  const frame = $("frame"), box = frame.firstChild.getBoundingClientRect();
  const x = event ? (event.clientX - box.left) / box.width : 0.5, y = event ? (event.clientY - box.top) / box.height : 0.5;
  view.zoomed = !view.zoomed;
  sizeStage();
  frame.scrollTo(x * frame.scrollWidth - frame.clientWidth / 2, y * frame.scrollHeight - frame.clientHeight / 2);
};

const VIEW_KEYS = {
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  Home: () => step(-view.at),
  End: () => step(grid.shown.length - 1 - view.at),
  b: toggleSplit,
  z: () => toggleZoom(),
  c: () => togglePick(viewed()),
  p: () => $("copyPrompt").click(),
  m: () => $("copyCommand").click(),
};

const setUpView = () => {
  $("prev").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("split").addEventListener("click", toggleSplit);
  $("zoom").addEventListener("click", () => toggleZoom());
  $("pick").addEventListener("click", () => togglePick(viewed()));
  $("copyPrompt").addEventListener("click", () => copy(viewed().prompt, "Prompt"));
  $("copyCommand").addEventListener("click", () => copy(commandOf(viewed()), "Command"));
  $("frame").addEventListener("click", (event) => {
    if (event.target.closest(".canvas") && !event.target.closest(".slider")) toggleZoom(event);
  });
  document.addEventListener("keydown", (event) => { // the focus may be nowhere: on a button that is disabled now
    if (!$("view").open || $("keys").open) return;
    const moving = event.target.matches(".edge, #frame") && /^(Arrow|Home|End|Page)/.test(event.key);
    const act = VIEW_KEYS[event.key];
    if (moving || !act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
  $("view").addEventListener("close", () => {
    document.documentElement.classList.remove("covered");
    if (!$("versus").open) focusOn(view.at);
  });
  new ResizeObserver(sizeStage).observe($("frame"));
  setUpSwipe();
};

const setUpSwipe = () => {
  let start = null;
  $("stage").addEventListener("touchstart", (event) => {
    const free = event.touches.length === 1 && !view.zoomed && !event.target.closest(".slider");
    start = free ? event.touches[0] : null;
  }, { passive: true });
  $("stage").addEventListener("touchend", (event) => {
    if (!start) return;
    const end = event.changedTouches[0];
    const across = end.clientX - start.clientX, down = end.clientY - start.clientY;
    if (Math.abs(across) > 45 && Math.abs(across) > 2 * Math.abs(down)) step(across < 0 ? 1 : -1);
  }, { passive: true });
};
