// The page's own parts, its keys, and the start of it all.
const setUpTheme = () => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const told = () => $("theme").setAttribute("aria-pressed", String(dark()));
  const kept = remembered("theme");
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  $("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    remembered("theme", root.dataset.theme);
    told();
  });
  system.addEventListener("change", told);
  told();
};

const setUpSize = () => {
  const small = matchMedia("(max-width: 640px)").matches;
  grid.rowHeight = Number(remembered("height")) || (small ? 180 : 230);
  $("height").value = grid.rowHeight;
  $("height").addEventListener("input", () => {
    grid.rowHeight = Number($("height").value);
    remembered("height", grid.rowHeight);
    layOut();
  });
};

const sums = () => {
  const saved = entries.filter(shows).length;
  const cost = entries.reduce((sum, entry) => sum + (entry.price ?? 0), 0);
  const failed = entries.length - saved;
  return [many(saved, "image"), failed ? `${failed.toLocaleString("en")} without` : "", cost ? money(cost) : "",
    data.unread ? `${many(data.unread, "line")} unreadable` : ""].filter(Boolean).join(" \u00b7 ");
};

const PAGE_KEYS = {
  "/": () => { $("text").focus(); $("text").select(); },
  "?": () => $("keys").showModal(),
  t: () => $("theme").click(),
  v: openVersus,
  c: () => { if (document.activeElement.closest(".tile")) togglePick(grid.shown[grid.current]); },
};

const setUpKeys = () => {
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=range]), select, textarea");
    if (typing && event.key === "Escape" && event.target === $("text")) {
      event.target.blur();
      return;
    }
    if (typing || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    const covered = document.querySelector("dialog[open]");
    const act = PAGE_KEYS[event.key];
    const everywhere = event.key === "t" || (event.key === "v" && covered === $("view"));
    if (!act || (covered && !everywhere)) return;
    event.preventDefault();
    act();
  });
};

for (const dialog of document.querySelectorAll("dialog")) {
  for (const button of dialog.querySelectorAll(".close")) button.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}
$("help").addEventListener("click", () => $("keys").showModal());
$("more").addEventListener("click", () => {
  const open = $("more").getAttribute("aria-expanded") !== "true";
  $("more").setAttribute("aria-expanded", String(open));
  $("filters").classList.toggle("shown", open);
});
$("sums").textContent = sums();
setUpTheme();
setUpSize();
setUpFilters(() => show(chosen()));
setUpGrid();
setUpView();
setUpCompare();
setUpKeys();
show(chosen());
