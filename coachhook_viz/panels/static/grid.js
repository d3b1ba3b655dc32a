// A table that a person can walk through with mouse and arrow keys. All text is set as text.

const STEPS = {
  ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
  Home: [0, -Infinity], End: [0, Infinity], PageUp: [-Infinity, 0], PageDown: [Infinity, 0],
};

function visible(text) {
  return text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ +/, (s) => "·".repeat(s.length));
}

KINDS.grid = ({ model, ends }) => {
  const el = element("div", "cv-grid-whole");
  const box = element("div", "cv-grid-box");
  const table = element("table", "cv-grid");
  const detail = element("div", "cv-grid-detail");
  const empty = element("p", "cv-note");
  box.append(table);
  el.append(box, empty, detail);
  let at = [0, 0]; // the one cell that Tab reaches
  let typing = false;
  let planned = false;
  let seen = ""; // the columns that were last brought into view

  const cellAt = ([row, column]) => table.querySelector(`[data-row="${row}"][data-column="${column}"]`);
  const picked = (row, column) => {
    const selected = model.get("selected");
    if (!selected.length || model.get("picks") === "nothing") return false;
    return selected[0] === row && (model.get("picks") === "row" || selected[1] === column);
  };

  function draw() {
    planned = false;
    if (typing) return; // what is being typed stays until it is done
    const hadFocus = table.contains(document.activeElement);
    const tokens = model.get("look") === "tokens";
    const name = tokens ? visible : (text) => text;
    const [columns, rows, cells] = [model.get("columns"), model.get("rows"), model.get("cells")];
    table.className = `cv-grid cv-grid-${model.get("look")} cv-picks-${model.get("picks")}`;
    table.setAttribute("role", "grid");
    table.setAttribute("aria-label", model.get("label"));
    table.replaceChildren();
    if (columns.length) {
      const head = table.createTHead().insertRow();
      head.setAttribute("role", "row");
      if (rows.length) {
        const corner = headCell("columnheader", model.get("corner"));
        if (!model.get("corner")) corner.append(element("span", "cv-unseen", "row"));
        head.append(corner);
      }
      columns.forEach((text, column) => {
        const cell = headCell("columnheader", name(text));
        if (column === model.get("marked")) {
          cell.classList.add("cv-marked");
          cell.title = "the subject's last token";
          cell.append(element("span", "cv-mark", " ▲"));
        }
        head.append(cell);
      });
    }
    const body = table.createTBody();
    cells.forEach((line, row) => {
      const tr = body.insertRow();
      tr.setAttribute("role", "row");
      if (rows.length) tr.append(headCell("rowheader", rows[row]));
      line.forEach((cell, column) => tr.append(bodyCell(cell, row, column, name)));
    });
    box.hidden = !cells.length;
    empty.hidden = Boolean(cells.length) || !model.get("empty");
    empty.textContent = model.get("empty");
    at = [
      Math.min(at[0], Math.max(cells.length - 1, 0)),
      Math.min(at[1], Math.max((cells[0] || []).length - 1, 0)),
    ];
    const reachable = cellAt(at);
    if (reachable) reachable.tabIndex = 0;
    if (hadFocus && reachable) reachable.focus({ preventScroll: true });
    if (!table.querySelector(":hover")) detail.textContent = "";
    mark();
    const head = table.querySelector(".cv-marked");
    const now = [...columns, model.get("marked")].join("\n");
    if (head && now !== seen) box.scrollLeft = showing(head);
    seen = now;
    cut();
  }

  // The subject's end in the middle; further on where that shows the last token that a hook speaks
  // at, as long as the subject stays in view.
  function showing(head) {
    const middle = head.offsetLeft - (box.clientWidth - head.offsetWidth) / 2;
    const ends = [...table.querySelectorAll(".cv-framed")].map((td) => td.offsetLeft + td.offsetWidth);
    const name = table.querySelector("tbody th");
    const most = head.offsetLeft - (name ? name.offsetWidth : 0) - 6;
    return Math.min(Math.max(middle, ...ends.map((end) => end + 6 - box.clientWidth)), most);
  }

  // What is cut off on a side is seen there, and whole cells stand beside the row headers.
  function cut() {
    const first = table.querySelector("tbody th");
    box.style.scrollPaddingLeft = `${first ? first.offsetWidth : 0}px`;
    const left = box.scrollWidth - box.clientWidth - box.scrollLeft;
    el.classList.toggle("cv-cut-right", left > 2);
    el.classList.toggle("cv-cut-left", box.scrollLeft > 2);
    el.classList.toggle("cv-cut-below", box.scrollHeight - box.clientHeight - box.scrollTop > 2);
    if (box.scrollWidth > box.clientWidth) box.dataset.scrolls = "true";
    else delete box.dataset.scrolls;
  }

  function headCell(role, text) {
    const cell = element("th", "", text);
    cell.setAttribute("role", role);
    if (text.length > 24) cell.title = text;
    return cell;
  }

  function bodyCell(cell, row, column, name) {
    const td = element("td", cell.kind ? `cv-${cell.kind}` : "");
    td.setAttribute("role", "gridcell");
    td.dataset.row = row;
    td.dataset.column = column;
    td.tabIndex = -1;
    td.dataset.lmSuppressShortcuts = "true"; // JupyterLab would cut the whole playground on "x"
    if (cell.framed) td.classList.add("cv-framed");
    if (cell.shade !== undefined) {
      td.style.setProperty("--shade", `${Math.round(100 * Math.min(Math.max(cell.shade, 0), 1))}%`);
      td.classList.add("cv-shaded");
      if (cell.shade > 0.55) td.classList.add("cv-dark");
      if (cell.shade > 0.745) td.classList.add("cv-darker");
    }
    if (cell.bar !== undefined) {
      const track = element("span", "cv-bar");
      const fill = element("span", "cv-fill");
      fill.style.width = `${100 * Math.min(Math.max(cell.bar, 0), 1)}%`;
      track.append(fill);
      if (cell.line !== undefined) {
        const line = element("span", "cv-line");
        line.style.left = `${100 * Math.min(Math.max(cell.line, 0), 1)}%`;
        track.append(line);
      }
      td.append(track);
    }
    td.append(said(cell, name(cell.text || "")));
    if (cell.framed) td.append(element("span", "cv-mark", " ●"));
    if (cell.detail) td.setAttribute("aria-label", cell.detail);
    else if ((cell.text || "").length > 24) td.title = cell.text;
    return td;
  }

  function said(cell, text) {
    const span = element("span", "cv-text", cell.strong ? "" : text);
    if (cell.strong) {
      const [start, stop] = cell.strong;
      span.append(text.slice(0, start), element("b", "", text.slice(start, stop)), text.slice(stop));
    }
    return span;
  }

  function mark() {
    for (const td of table.querySelectorAll("[role=gridcell]")) {
      const chosen = picked(Number(td.dataset.row), Number(td.dataset.column));
      td.setAttribute("aria-selected", String(chosen));
    }
    reveal();
  }

  // A row that was picked elsewhere is scrolled to, and the round in force.
  function reveal() {
    const td = table.querySelector("[aria-selected=true]");
    if (!td || table.contains(document.activeElement)) return;
    if (model.get("look") === "timeline") {
      box.scrollLeft = td.offsetLeft - (box.clientWidth - td.offsetWidth) / 2;
      return;
    }
    const [outer, inner] = [box.getBoundingClientRect(), td.getBoundingClientRect()];
    if (inner.top < outer.top + 30) box.scrollTop -= outer.top + 30 - inner.top;
    else if (inner.bottom > outer.bottom) box.scrollTop += inner.bottom - outer.bottom;
  }

  function move(position, focus) {
    const next = cellAt(position);
    if (!next) return;
    const before = cellAt(at);
    if (before) before.tabIndex = -1;
    at = position;
    next.tabIndex = 0;
    if (focus) next.focus();
  }

  function say(target) {
    const td = target.closest("[role=gridcell]");
    const line = td && model.get("cells")[td.dataset.row];
    detail.textContent = (line && line[td.dataset.column] && line[td.dataset.column].detail) || "";
  }

  function pick(position) {
    if (model.get("picks") === "nothing") return;
    if (model.get("picks") === "block") {
      model.send({ press: position });
      return;
    }
    model.set("selected", position);
    model.save_changes();
    mark();
  }

  function type(td) {
    const position = [Number(td.dataset.row), Number(td.dataset.column)];
    const cell = model.get("cells")[position[0]][position[1]];
    const text = cell.typed === undefined ? cell.text || "" : cell.typed;
    const input = element("input", "cv-input");
    input.value = text;
    input.setAttribute("aria-label", `edit ${model.get("columns")[position[1]] || "cell"}`);
    typing = true;
    td.replaceChildren(input);
    input.focus();
    input.select();
    const end = (keep) => {
      if (!typing) return;
      typing = false;
      if (keep && input.value !== text) model.send({ typed: [...position, input.value] });
      draw();
      move(position, true);
    };
    input.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter") end(true);
      if (event.key === "Escape") end(false);
    });
    input.addEventListener("blur", () => end(true));
  }

  const editable = (td) => (model.get("cells")[td.dataset.row][td.dataset.column] || {}).editable;

  table.addEventListener("click", (event) => {
    const td = event.target.closest("[role=gridcell]");
    if (!td || typing) return;
    const position = [Number(td.dataset.row), Number(td.dataset.column)];
    move(position, true);
    pick(position);
  });
  table.addEventListener("dblclick", (event) => {
    const td = event.target.closest("[role=gridcell]");
    if (td && !typing && editable(td)) type(td);
  });
  table.addEventListener("keydown", (event) => {
    const td = event.target.closest("[role=gridcell]");
    if (!td || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (STEPS[event.key]) {
      const cells = model.get("cells");
      const clamp = (value, last) => Math.min(Math.max(value, 0), last);
      const row = clamp(at[0] + STEPS[event.key][0], cells.length - 1);
      move([row, clamp(at[1] + STEPS[event.key][1], cells[row].length - 1)], true);
    } else if (event.key === "F2" || (event.key === "Enter" && editable(td) && picked(...at))) {
      if (editable(td)) type(td);
    } else if (event.key === "Enter" || event.key === " ") {
      pick(at);
    } else return;
    event.preventDefault();
    event.stopPropagation(); // the notebook has its own use for these keys
  });
  table.addEventListener("mouseover", (event) => say(event.target));
  table.addEventListener("focusin", (event) => {
    say(event.target);
    const td = event.target.closest("[role=gridcell]"); // a screen reader focuses any cell
    if (td) move([Number(td.dataset.row), Number(td.dataset.column)], false);
  });

  box.addEventListener("scroll", cut, { passive: true });
  const watch = new ResizeObserver(() => {
    if (model.get("look") === "timeline") reveal();
    cut();
  });
  watch.observe(box);
  ends.push(() => watch.disconnect());
  const plan = () => {
    if (!planned) queueMicrotask(draw);
    planned = true;
  };
  for (const trait of ["label", "look", "picks", "empty", "corner", "columns", "rows", "marked", "cells"]) {
    listen(model, ends, `change:${trait}`, plan);
  }
  listen(model, ends, "change:selected", mark);
  draw();
  return el;
};
