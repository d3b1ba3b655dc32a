// The bench of a report: a slider over rounds, and the one fact that is looked at. All that it adds
// to the page is set as text.
"use strict";
(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const MARKS = { holds: "●", partly: "◐", missed: "○" };
  const WORDS = { holds: "holds", partly: "holds in part", missed: "does not hold" };
  const at = (id) => document.getElementById(id);
  const [slider, back, on, panel, table] = ["round", "back", "on", "fact", "retention"].map(at);
  const rows = [...table.tBodies[0].rows];
  const heads = [...table.tHead.rows[0].cells];
  const last = DATA.stops.length;
  const wrong = DATA.facts.findIndex((fact) => fact.after[DATA.stops[last - 1]].status !== "holds");
  let picked = Math.max(wrong, 0);
  let place = last;

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  const rounds = (number) => `${number} round${number === 1 ? "" : "s"}`;
  const stop = () => (place ? DATA.stops[place - 1] : 0);
  const now = (fact) => fact.after[stop()];
  const when = () => (place ? `after ${rounds(stop())}` : "before any round");

  // Everything that the slider moves.
  function show(say) {
    slider.value = place;
    back.disabled = place === 0;
    on.disabled = place === last;
    const name = place ? DATA.names[place - 1] : "";
    const where = place ? `${stop()} of ${DATA.stops[last - 1]}` : "none: the unedited model";
    at("where").textContent = name ? `${where}: ${name}` : where;
    const states = DATA.facts.map(now).filter(Boolean);
    const count = (status) => states.filter((state) => state.status === status).length;
    const parts = [`${states.length} fact${states.length === 1 ? "" : "s"}`];
    for (const [status, word] of [["holds", "hold"], ["partly", "partly"], ["missed", "missed"]]) {
      if (count(status) || (status === "holds" && states.length)) {
        parts.push(`${MARKS[status]} ${count(status)} ${word}`);
      }
    }
    at("tally").textContent = parts.join(" · ");
    at("p-when").textContent = ` ${when()}`;
    slider.setAttribute("aria-valuetext", `${where}${name ? `: ${name}` : ""}`);
    heads.forEach((head, column) => head.classList.toggle("now", place > 0 && column === place + 1));
    rows.forEach((row, index) => {
      const state = now(DATA.facts[index]);
      row.cells[1].textContent = state ? state.p.toFixed(2) : "–";
      row.classList.toggle("ahead", !state);
      row.classList.toggle("picked", index === picked);
      row.querySelector("button").setAttribute("aria-pressed", String(index === picked));
      [...row.cells].forEach((cell, column) => {
        cell.classList.toggle("now", place > 0 && column === place + 1);
      });
    });
    draw();
    const fact = DATA.facts[picked];
    const state = now(fact);
    const told = state
      ? `${WORDS[state.status]}, the model says ${state.says[0][0]}, target ${state.p.toFixed(2)}`
      : "not edited yet";
    const counted = parts.join(", ").replace(/[●◐○] /g, "");
    if (say) at("live").textContent = `${when()}: ${counted}. ${fact.subject}: ${told}.`;
  }

  function draw() {
    const fact = DATA.facts[picked];
    const state = now(fact);
    const title = make("h3", "", fact.prompt[0], make("b", "subject", fact.subject), fact.prompt[1],
      " → ", make("span", "target", fact.target));
    title.id = "fact-title";
    const chips = make("p", "chips");
    chips.append(state
      ? make("span", `status ${state.status}`, `${MARKS[state.status]} ${WORDS[state.status]}`)
      : make("span", "status", "not edited yet"));
    if (state) chips.append(make("span", "", `P(target) ${state.p.toFixed(2)}`));
    chips.append(make("span", "", `edited in round ${fact.round}`));
    if (fact.truth !== null) chips.append(make("span", "", `said to be true: ${fact.truth}`));
    panel.replaceChildren(title, chips, sides(fact, state), scope(fact, state), prompts(fact, state));
  }

  function sides(fact, state) {
    const box = make("div", "sides");
    box.append(side("before editing", fact.before, fact.before, ""));
    box.append(state ? side(when(), state.says, fact.before, "now") : later(fact));
    return box;
  }

  function later(fact) {
    const text = `This fact is edited in round ${fact.round}. Move the slider on to see its answer then.`;
    return make("div", "", make("h4", "", when()), make("p", "soft", text));
  }

  function side(name, shares, before, kind) {
    const changed = shares[0][0] !== before[0][0];
    const body = make("tbody", "");
    shares.forEach(([token, p], index) => {
      const fill = make("i", "");
      fill.style.width = `${100 * p}%`;
      const word = make("th", kind && changed && index === 0 ? "new" : "", token);
      word.scope = "row";
      word.title = token;
      body.append(make("tr", "", word, make("td", "", make("span", "track", fill)),
        make("td", "number", p.toFixed(2))));
    });
    const shown = make("table", `shares ${kind} ${kind && !changed ? "same" : ""}`, body);
    shown.setAttribute("aria-label", `likeliest next tokens ${name}`);
    return make("div", "", make("h4", "", name), shown);
  }

  function scrolling(label, ...children) {
    const box = make("div", "scroll", ...children);
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", label);
    return box;
  }

  function scope(fact, state) {
    const part = make("div", "part", make("h4", "", `Where the hook speaks on this prompt, ${when()}`));
    if (!state) {
      part.append(make("p", "soft", "The edits of earlier rounds only: nothing was recorded here."));
      return part;
    }
    const head = make("tr", "", make("td", ""));
    fact.tokens.forEach((token, index) => {
      const cell = make("th", "", index === fact.last ? `${token} ▲` : token);
      cell.scope = "col";
      head.append(cell);
    });
    const [low, high] = state.bounds;
    const body = make("tbody", "");
    state.scores.forEach((line, row) => {
      const name = make("th", "", state.layers[row]);
      name.scope = "row";
      const cells = line.map((score, column) => {
        const inside = state.inside[row][column] === "1";
        const shade = Math.min(Math.max((score - low) / (high - low), 0), 1);
        const cell = make("td", inside ? "in" : "", score.toFixed(2) + (inside ? " ●" : ""));
        cell.style.setProperty("--s", `${Math.round(40 * shade)}%`); // so that ink reads on it
        return cell;
      });
      body.append(make("tr", "", name, ...cells));
    });
    const grid = make("table", "scope", make("thead", "", head), body);
    part.append(scrolling("Scope, layers by tokens", grid));
    part.append(make("p", "soft", `${state.why} Framed ●: in scope. ▲: the subject's last token.`));
    return part;
  }

  function prompts(fact, state) {
    const names = ["kind", "prompt", "before", state ? when() : "", state ? "hook" : ""];
    const head = make("tr", "");
    for (const name of names.filter(Boolean)) {
      const cell = make("th", "", name);
      cell.scope = "col";
      head.append(cell);
    }
    const body = make("tbody", "");
    fact.kinds.forEach((kind, index) => {
      const [word, share] = fact.replies[index];
      const cells = [make("td", "", kind), make("td", "whole", fact.prompts[index]),
        make("td", "", `${word} `, make("span", "number", share.toFixed(2)))];
      if (state) {
        const [after, p, right, spoke] = state.replies[index];
        const status = right ? "holds" : "missed";
        const wanted = kind === "neighbour"
          ? (right ? "stayed" : "changed") : (right ? "the target" : "not the target");
        cells.push(
          make("td", "", make("span", status, `${MARKS[status]} `), make("span", "vh", `${wanted}: `),
            make("span", after === word ? "" : "new", after), " ", make("span", "number", p.toFixed(2))),
          make("td", "", spoke ? "speaks" : "silent"));
      }
      cells.forEach((cell, column) => { if (column > 1) cell.dataset.head = names[column]; });
      body.append(make("tr", "", ...cells));
    });
    const shown = make("table", "prompts wide stack", make("thead", "", head), body);
    const key = "● the target, or a neighbour that stayed what it was · ○ not";
    return make("div", "part", make("h4", "", "Its prompts, and the next word the model says"),
      scrolling("Prompts of this fact", shown), make("p", "soft", state ? key : ""));
  }

  function go(to) {
    const next = Math.min(Math.max(to, 0), last);
    if (next === place) return;
    place = next;
    show(true);
  }

  function pick(index) {
    picked = index;
    show(true);
  }

  rows.forEach((row, index) => {
    const button = make("button", "", ...row.cells[0].childNodes);
    button.type = "button";
    button.addEventListener("click", () => pick(index));
    row.cells[0].append(button);
    row.addEventListener("click", (event) => {
      const cell = event.target.closest("td");
      if (!cell) return;
      if (cell.cellIndex > 1) place = cell.cellIndex - 1;
      pick(index);
    });
  });
  slider.addEventListener("input", () => go(Number(slider.value)));
  back.addEventListener("click", () => go(place - 1));
  on.addEventListener("click", () => go(place + 1));
  document.documentElement.classList.add("scripted");
  at("bar").hidden = false;
  panel.hidden = false;
  show(false);
})();
