// A map of dots: drawing over it picks those within the frame, a click the nearest one.

const SVG = "http://www.w3.org/2000/svg";
const [WIDE, TALL, EDGE, NEAR] = [320, 240, 12, 12];

KINDS.dots = ({ model, ends }) => {
  const el = element("div", "cv-dots");
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDE} ${TALL}`);
  svg.setAttribute("role", "img");
  const detail = element("div", "cv-grid-detail");
  el.append(svg, detail);
  let start = null;
  let frame = null;

  const placed = (dot) => [EDGE + dot.x * (WIDE - 2 * EDGE), TALL - EDGE - dot.y * (TALL - 2 * EDGE)];
  const at = (event) => {
    const box = svg.getBoundingClientRect();
    return [(event.clientX - box.left) * (WIDE / box.width), (event.clientY - box.top) * (TALL / box.height)];
  };
  const nearest = ([x, y]) => {
    let [best, distance] = [-1, NEAR];
    model.get("dots").forEach((dot, place) => {
      const [dx, dy] = placed(dot);
      const found = Math.hypot(dx - x, dy - y);
      if (found < distance) [best, distance] = [place, found];
    });
    return best;
  };

  follow(model, ends, ["dots", "label"], () => {
    const dots = model.get("dots");
    const changed = dots.filter((dot) => dot.changed).length;
    svg.setAttribute("aria-label", `${model.get("label")}: ${dots.length} prompts, ${changed} changed`);
    svg.replaceChildren(...dots.map((dot, place) => {
      const circle = document.createElementNS(SVG, "circle");
      const [x, y] = placed(dot);
      circle.setAttribute("cx", x);
      circle.setAttribute("cy", y);
      circle.setAttribute("r", dot.changed ? 4 : 3);
      circle.dataset.place = place;
      circle.setAttribute("class", `cv-dot${dot.changed ? " cv-dot-changed" : ""}${dot.fired ? " cv-dot-fired" : ""}`);
      return circle;
    }));
    el.hidden = !dots.length;
  });

  svg.addEventListener("pointerdown", (event) => {
    start = at(event);
    frame = document.createElementNS(SVG, "rect");
    frame.setAttribute("class", "cv-dots-frame");
    svg.append(frame);
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    const now = at(event);
    if (!start) {
      const place = nearest(now);
      detail.textContent = place < 0 ? "" : model.get("dots")[place].detail;
      return;
    }
    frame.setAttribute("x", Math.min(start[0], now[0]));
    frame.setAttribute("y", Math.min(start[1], now[1]));
    frame.setAttribute("width", Math.abs(start[0] - now[0]));
    frame.setAttribute("height", Math.abs(start[1] - now[1]));
  });
  svg.addEventListener("pointerup", (event) => {
    if (!start) return;
    const [from, to] = [start, at(event)];
    start = null;
    frame.remove();
    if (Math.hypot(from[0] - to[0], from[1] - to[1]) < 4) {
      const place = nearest(to);
      model.send({ pick: place < 0 ? [] : [place] });
      return;
    }
    const inside = (value, axis) => value >= Math.min(from[axis], to[axis]) && value <= Math.max(from[axis], to[axis]);
    const picked = model.get("dots").flatMap((dot, place) => {
      const [x, y] = placed(dot);
      return inside(x, 0) && inside(y, 1) ? [place] : [];
    });
    model.send({ pick: picked });
  });
  return el;
};
