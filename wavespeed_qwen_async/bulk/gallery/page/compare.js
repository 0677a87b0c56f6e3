// Two images beside or over each other, and how they were made differently.
const picks = [];
const COMPARED = new Set(["Prompt", "LoRA", "Seed", "Size", "Model", "Source", "Cost", "Took"]);
let versusOver = false;

const isPicked = (entry) => picks.includes(entry);

const togglePick = (entry) => {
  if (!shows(entry)) return;
  if (isPicked(entry)) picks.splice(picks.indexOf(entry), 1);
  else {
    picks.push(entry);
    if (picks.length > 2) picks.shift();
  }
  drawPicks();
  toast(picks.length === 2 ? "Two images to compare" : picks.length ? "Add one more to compare" : "Nothing to compare");
};

const drawPicks = () => {
  for (const [at, tile] of grid.tiles) {
    tile.querySelector(".pick")?.setAttribute("aria-pressed", String(isPicked(grid.shown[at])));
  }
  $("pick").setAttribute("aria-pressed", String($("view").open && isPicked(viewed())));
  $("tray").hidden = !picks.length;
  document.documentElement.classList.toggle("tray", picks.length > 0);
  $("picked").replaceChildren(...picks.map((entry) => make("img", { src: entry.thumb, alt: entry.prompt })),
    ...(picks.length === 1 ? [make("span", { class: "hint", text: "Add one more" })] : []));
  $("compare").disabled = picks.length < 2;
};

const openVersus = () => {
  if (picks.length < 2) return;
  if ($("view").open) $("view").close();
  $("versus").showModal();
  document.documentElement.classList.add("covered");
  drawVersus();
};

const drawVersus = () => {
  const [left, right] = picks;
  $("aside").setAttribute("aria-pressed", String(!versusOver));
  $("over").setAttribute("aria-pressed", String(versusOver));
  const figure = (entry) => make("figure", {}, make("div", { class: "canvas" },
    make("img", { src: entry.url, alt: entry.prompt, class: "there" })));
  $("pair").className = versusOver ? "over" : "aside";
  $("pair").replaceChildren(...(versusOver
    ? [make("figure", {}, makeSlider({ url: left.url, label: "Left" }, { url: right.url, label: "Right" }))]
    : [figure(left), figure(right)]));
  drawDifferences(left, right);
  sizeVersus();
};

const drawDifferences = (left, right) => {
  const told = (entry) => new Map([["Prompt", entry.prompt], ...facts(entry)].filter(([name]) => COMPARED.has(name))
    .map(([name, value]) => [name, [value].flat().join(", ")]));
  const [one, other] = [told(left), told(right)];
  const rows = [...one.keys()].filter((name) => one.get(name) || other.get(name));
  const differs = (name) => one.get(name) !== other.get(name);
  const ordered = [...rows.filter(differs), ...rows.filter((name) => !differs(name))];
  $("differences").replaceChildren(...ordered.map((name) => make("tr", { class: differs(name) ? "differs" : "same" },
    make("th", { scope: "row", text: name }),
    ...(differs(name)
      ? [make("td", { text: one.get(name) || "\u2013", dir: "auto" }), make("td", { text: other.get(name) || "\u2013", dir: "auto" })]
      : [make("td", { text: one.get(name), dir: "auto", colspan: "2" })]))));
};

const sizeVersus = () => {
  if (!$("versus").open) return;
  const shapes = picks.map((entry) => entry.width / entry.height || aspectOf(entry));
  [...$("pair").querySelectorAll("figure")].forEach((figure, at) => {
    const box = fitted(figure, versusOver ? shapes[1] : shapes[at]);
    figure.firstChild.style.width = `${box.width}px`;
    figure.firstChild.style.height = `${box.height}px`;
  });
};

const setUpCompare = () => {
  $("compare").addEventListener("click", openVersus);
  $("unpick").addEventListener("click", () => { picks.length = 0; drawPicks(); });
  $("aside").addEventListener("click", () => { versusOver = false; drawVersus(); });
  $("over").addEventListener("click", () => { versusOver = true; drawVersus(); });
  $("versus").addEventListener("close", () => {
    document.documentElement.classList.remove("covered");
    focusOn(grid.current);
  });
  new ResizeObserver(sizeVersus).observe($("pair"));
};
