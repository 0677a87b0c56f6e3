// Two pictures over each other, and an edge between them to move: by pointer, touch or keys.
const makeSlider = (left, right) => {
  const range = make("input", { type: "range", min: "0", max: "100", step: "0.5", value: "50", class: "edge",
    "aria-label": `${left.label} and ${right.label}: where the edge between them is` });
  const canvas = make("div", { class: "canvas slider" },
    make("img", { src: right.url, alt: right.label, draggable: "false", class: "there" }),
    make("img", { src: left.url, alt: left.label, draggable: "false", class: "there over" }),
    make("span", { class: "side left", text: left.label }), make("span", { class: "side right", text: right.label }),
    range, make("span", { class: "line" }, make("i", {}, icon("slider"))));
  const move = (value) => {
    range.value = value;
    canvas.style.setProperty("--edge", `${range.value}%`);
    range.setAttribute("aria-valuetext", `${Math.round(range.value)} percent ${left.label}`);
  };
  range.addEventListener("input", () => move(range.value));
  const follow = (event) => {
    const box = canvas.getBoundingClientRect();
    move(((event.clientX - box.left) / box.width) * 100);
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    follow(event);
    range.focus({ preventScroll: true });
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (canvas.hasPointerCapture(event.pointerId)) follow(event);
  });
  move(50);
  return canvas;
};

// The largest box of this shape within a room.
const fitted = (room, aspect) => {
  const width = Math.min(room.clientWidth, room.clientHeight * aspect);
  return { width, height: width / aspect };
};
