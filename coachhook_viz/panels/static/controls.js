// What a person types into and presses. Nobody but that person writes into a field that has the focus.

const QUIET = ["data-lm-suppress-shortcuts", "true"]; // JupyterLab would take the keys for its own

KINDS.group = ({ model, child }) => {
  const role = model.get("role");
  const el = element(role === "region" ? "section" : "div", "cv-group");
  if (role) el.setAttribute("role", role);
  if (model.get("label")) el.setAttribute("aria-label", model.get("label"));
  for (const node of model.children) child(node, el);
  return el;
};

KINDS.heading = ({ model, ends }) => {
  const el = element("div", "cv-title");
  const title = element("h2", "", model.get("title"));
  const help = element("span");
  title.tabIndex = -1;
  el.append(title, help);
  follow(model, ends, ["help"], () => { help.textContent = model.get("help"); });
  return el;
};

KINDS.text = ({ model, ends }) => {
  const el = element("div", "cv-words");
  const live = model.get("live");
  if (live) {
    el.setAttribute("role", live === "assertive" ? "alert" : "status");
    el.setAttribute("aria-live", live);
  }
  if (model.get("label")) el.setAttribute("aria-label", model.get("label"));
  // its markup is made in Python of escaped text
  follow(model, ends, ["html"], () => {
    const end = el.scrollHeight - el.scrollTop - el.clientHeight < 30;
    el.innerHTML = model.get("html");
    if (end && el.classList.contains("cv-talk")) el.scrollTop = el.scrollHeight;
  });
  return el;
};

KINDS.field = ({ model, ends }) => {
  const el = element("div", "cv-field");
  const [id, about] = [unique(), unique()];
  const many = model.get("rows") > 0;
  const label = element("label");
  const input = element(many ? "textarea" : "input");
  const error = element("p", "cv-note cv-bad");
  input.id = label.htmlFor = id;
  input.setAttribute(...QUIET);
  input.setAttribute("spellcheck", "false");
  input.setAttribute("autocomplete", "off");
  if (many) input.rows = model.get("rows");
  else input.type = "text";
  error.id = about;
  error.setAttribute("aria-live", "polite");
  el.append(label, input, error);
  input.value = model.get("value");

  const grow = () => {
    if (!many || !input.offsetParent) return;
    input.style.height = "auto";
    input.style.height = `${Math.min(input.scrollHeight + 2, 160)}px`;
  };
  const say = () => {
    model.set("value", input.value);
    model.save_changes();
  };
  const write = () => {
    const text = model.get("value");
    if (input.value === text) return;
    const mine = document.activeElement === input && model.get("over") !== input.value;
    if (mine) say(); // what the person has typed stands
    else input.value = text;
    grow();
  };
  input.addEventListener("input", () => {
    grow();
    say();
  });
  input.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key !== "Enter" || event.isComposing || event.shiftKey) return;
    if (many && !model.get("submits")) return;
    event.preventDefault();
    say();
    model.send({ enter: input.value });
  });
  listen(model, ends, "change:value", write);
  follow(model, ends, ["label", "placeholder", "error", "disabled"], () => {
    label.textContent = model.get("label");
    input.placeholder = model.get("placeholder");
    input.readOnly = model.get("disabled");
    error.textContent = model.get("error");
    error.hidden = !model.get("error");
    input.toggleAttribute("aria-invalid", false);
    if (model.get("error")) {
      input.setAttribute("aria-invalid", "true");
      input.setAttribute("aria-describedby", about);
    } else input.removeAttribute("aria-describedby");
  });
  const watch = new ResizeObserver(grow);
  watch.observe(el);
  ends.push(() => watch.disconnect());
  return el;
};

function pressable(model, ends, button, act) {
  button.type = "button";
  button.setAttribute(...QUIET);
  button.addEventListener("click", () => {
    if (!model.get("disabled")) act(); // it keeps the focus while it rests, so it is not disabled
  });
  follow(model, ends, ["label", "disabled", "look", "tip"], () => {
    button.textContent = model.get("label");
    button.setAttribute("aria-disabled", String(Boolean(model.get("disabled"))));
    button.dataset.look = model.get("look");
    if (model.get("tip")) button.title = model.get("tip");
    else button.removeAttribute("title");
    if (model.get("name")) button.setAttribute("aria-label", model.get("name"));
  });
}

KINDS.button = ({ model, ends }) => {
  const el = element("button", "cv-button");
  pressable(model, ends, el, () => model.send({ click: true }));
  listen(model, ends, "message", ({ download, type }, buffers) => {
    const data = buffers[0].buffer ? new Uint8Array(buffers[0].buffer, buffers[0].byteOffset, buffers[0].byteLength) : buffers[0];
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([data], { type }));
    link.download = download;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
  return el;
};

KINDS.toggle = ({ model, ends }) => {
  const el = element("button", "cv-button");
  pressable(model, ends, el, () => {
    model.set("value", !model.get("value"));
    model.save_changes();
  });
  const state = model.get("expands") ? "aria-expanded" : "aria-pressed";
  follow(model, ends, ["value"], () => el.setAttribute(state, String(model.get("value"))));
  return el;
};

KINDS.choice = ({ model, ends }) => {
  const el = element("div", "cv-choice");
  const [label, buttons] = [element("span", "cv-label"), element("span", "cv-segments")];
  label.id = unique();
  el.setAttribute("role", "group");
  el.setAttribute("aria-labelledby", label.id);
  el.append(label, buttons);
  follow(model, ends, ["options", "label"], () => {
    const held = [...buttons.children].indexOf(document.activeElement);
    label.textContent = model.get("label");
    buttons.replaceChildren(...model.get("options").map(([text, value, tip]) => {
      const button = element("button", "cv-button", text);
      button.type = "button";
      button.dataset.value = value;
      if (tip) button.title = tip;
      button.setAttribute(...QUIET);
      button.addEventListener("click", () => {
        if (model.get("disabled")) return;
        model.set("value", value);
        model.save_changes();
      });
      return button;
    }));
    if (held >= 0) buttons.children[Math.min(held, buttons.children.length - 1)]?.focus();
  });
  follow(model, ends, ["value", "options", "disabled"], () => {
    for (const button of buttons.children) {
      button.setAttribute("aria-pressed", String(button.dataset.value === model.get("value")));
      button.setAttribute("aria-disabled", String(Boolean(model.get("disabled"))));
    }
  });
  return el;
};

KINDS.select = ({ model, ends }) => {
  const el = element("div", "cv-field cv-select");
  const [label, select] = [element("label"), element("select")];
  select.id = label.htmlFor = unique();
  select.setAttribute(...QUIET);
  el.append(label, select);
  select.addEventListener("change", () => {
    model.set("value", select.value);
    model.save_changes();
  });
  follow(model, ends, ["label", "options", "value", "disabled"], () => {
    label.textContent = model.get("label");
    const shown = [...select.options].map((one) => [one.textContent, one.value]);
    if (!same(shown, model.get("options"))) {
      select.replaceChildren(...model.get("options").map(([text, value]) => {
        const option = element("option", "", text);
        option.value = value;
        return option;
      }));
    }
    select.value = model.get("value");
    select.disabled = Boolean(model.get("disabled"));
  });
  return el;
};

KINDS.slider = ({ model, ends }) => {
  const el = element("div", "cv-field cv-slider");
  const [label, line, input, read] = [element("label"), element("span"), element("input"), element("output")];
  input.id = label.htmlFor = unique();
  input.type = "range";
  input.setAttribute(...QUIET);
  line.append(input, read);
  el.append(label, line);
  const show = () => { read.textContent = Number(input.value).toFixed(model.get("digits")); };
  let held = false; // while it is dragged it is the person's alone
  input.addEventListener("pointerdown", () => { held = true; });
  window.addEventListener("pointerup", release);
  ends.push(() => window.removeEventListener("pointerup", release));
  function release() { held = false; }
  input.addEventListener("input", () => {
    show();
    model.set("value", Number(input.value));
    model.save_changes();
  });
  input.addEventListener("keydown", (event) => event.stopPropagation());
  follow(model, ends, ["label", "min", "max", "step", "value", "disabled"], () => {
    label.textContent = model.get("label");
    if (!held) {
      for (const name of ["min", "max", "step"]) input[name] = model.get(name);
      input.value = model.get("value");
    }
    input.disabled = Boolean(model.get("disabled"));
    show();
  });
  return el;
};

KINDS.check = ({ model, ends }) => {
  const el = element("label", "cv-check");
  const [box, text] = [element("input"), element("span")];
  box.type = "checkbox";
  box.setAttribute(...QUIET);
  el.append(box, text);
  box.addEventListener("change", () => {
    model.set("value", box.checked);
    model.save_changes();
  });
  follow(model, ends, ["label", "value"], () => {
    text.textContent = model.get("label");
    box.checked = model.get("value");
  });
  return el;
};

KINDS.upload = ({ model, ends }) => {
  const el = element("span", "cv-upload");
  const [button, input] = [element("button", "cv-button"), element("input")];
  input.type = "file";
  input.hidden = true;
  input.accept = model.get("accept");
  input.setAttribute("aria-label", model.get("label"));
  el.append(button, input);
  pressable(model, ends, button, () => input.click());
  input.addEventListener("change", async () => {
    const [file] = input.files;
    if (!file) return;
    model.send({ file: file.name }, [await file.arrayBuffer()]);
    input.value = "";
  });
  return el;
};

KINDS.chips = ({ model, ends }) => {
  const el = element("div", "cv-chips");
  el.setAttribute("role", "group");
  follow(model, ends, ["options", "label"], () => {
    el.setAttribute("aria-label", model.get("label"));
    const had = el.contains(document.activeElement);
    if (had && !model.get("options").length) leave(el);
    el.replaceChildren(...model.get("options").map((text, place) => {
      const button = element("button", "cv-button cv-chip", text);
      button.type = "button";
      button.setAttribute(...QUIET);
      button.addEventListener("click", () => model.send({ pick: place }));
      return button;
    }));
    if (had) el.querySelector("button")?.focus();
  });
  return el;
};

KINDS.tabs = ({ model, ends }) => {
  const el = element("div", "cv-tabs");
  el.setAttribute("role", "tablist");
  el.setAttribute("aria-label", model.get("label"));
  const pick = (value) => {
    model.set("value", value);
    model.save_changes();
  };
  const values = () => model.get("options").map(([, value]) => value);
  el.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const end = { Home: 0, End: values().length - 1 }[event.key];
    if (step === undefined && end === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const at = values().indexOf(model.get("value"));
    const place = end ?? (at + step + values().length) % values().length;
    pick(values()[place]);
    el.children[place].focus();
  });
  follow(model, ends, ["options"], () => {
    el.replaceChildren(...model.get("options").map(([text, value, tip]) => {
      const tab = element("button", "cv-tab", text);
      if (tip) tab.title = tip;
      tab.type = "button";
      tab.dataset.value = value;
      tab.setAttribute("role", "tab");
      tab.setAttribute(...QUIET);
      tab.addEventListener("click", () => pick(value));
      return tab;
    }));
  });
  follow(model, ends, ["value", "options"], () => {
    for (const tab of el.children) {
      const now = tab.dataset.value === model.get("value");
      tab.setAttribute("aria-selected", String(now));
      tab.tabIndex = now ? 0 : -1;
    }
  });
  return el;
};

const MANY = 100; // rows from which a list draws only those that can be seen

// A list whose rows are known by a key: what is chosen stays chosen wherever its row goes.
KINDS.list = ({ model, ends }) => {
  const el = element("div", "cv-list");
  const none = element("p", "cv-note");
  const rows = element("div");
  rows.setAttribute("role", "listbox");
  rows.setAttribute("aria-multiselectable", "true");
  el.append(none, rows);
  let at = null; // the key that Tab reaches: its row is always drawn
  let all = []; // keys of all rows, drawn or not
  let drawn = new Map(); // by key
  const heights = new Map(); // by key, of rows that were drawn in this width
  let usual = 40; // the mean of them, kept while there are none
  const row = (key) => drawn.get(key);
  const chosen = () => model.get("chosen");
  const choose = (list) => {
    model.set("chosen", list);
    model.save_changes();
  };
  const go = (key, focus) => {
    if (row(at)) row(at).tabIndex = -1;
    at = key;
    draw();
    const now = row(key);
    if (!now) return;
    now.tabIndex = 0;
    if (!focus) return;
    now.focus({ preventScroll: true }); // the browser would go by heights that are not measured yet
    settle(now);
    now.scrollIntoView({ block: "nearest" }); // the list itself may be cut off
  };
  const span = (from, to) => {
    const [one, other] = [all.indexOf(from), all.indexOf(to)].sort((a, b) => a - b);
    return all.slice(Math.max(one, 0), other + 1);
  };
  rows.addEventListener("click", (event) => {
    const key = event.target.closest("[role=option]")?.dataset.key;
    if (key === undefined) return;
    if (event.shiftKey && at !== null) choose(span(at, key));
    else if (event.ctrlKey || event.metaKey || event.target.closest(".cv-pick")) {
      choose(chosen().includes(key) ? chosen().filter((one) => one !== key) : [...chosen(), key]);
    } else if (same(chosen(), [key])) model.send({ again: key });
    else choose([key]);
    go(key, true);
  });
  rows.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1, Home: -all.length, End: all.length, PageDown: 10, PageUp: -10 }[event.key];
    if (step !== undefined && all.length) {
      const to = all[Math.min(Math.max(all.indexOf(at) + step, 0), all.length - 1)];
      if (event.shiftKey) choose([...new Set([...chosen(), to])]);
      go(to, true);
    } else if (event.key === "Enter") choose([at]);
    else if (event.key === " ") {
      choose(chosen().includes(at) ? chosen().filter((one) => one !== at) : [...chosen(), at]);
    } else if (event.key === "a" && (event.ctrlKey || event.metaKey)) choose(all);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  const mark = () => {
    const now = new Set(chosen());
    for (const one of rows.children) one.setAttribute("aria-selected", String(now.has(one.dataset.key)));
  };
  const reveal = () => {
    if (chosen().length !== 1 || !all.includes(chosen()[0])) return;
    if (rows.contains(document.activeElement)) return;
    go(chosen()[0], false);
    settle(row(chosen()[0]));
  };
  // Scroll to a row, as little as needed; what is drawn there may be higher than it was taken for.
  const settle = (one) => {
    for (let tries = 0; tries < 10; tries += 1) {
      const [box, inner] = [el.getBoundingClientRect(), one.getBoundingClientRect()];
      if (inner.top < box.top) el.scrollTop -= box.top - inner.top;
      else if (inner.bottom > box.bottom) el.scrollTop += inner.bottom - box.bottom;
      else return;
      draw();
    }
  };

  // Where each row begins and the last one ends; rows that were never drawn have the mean height.
  const starts = () => {
    if (heights.size) usual = [...heights.values()].reduce((a, b) => a + b) / heights.size;
    const found = [0];
    for (const key of all) found.push(found.at(-1) + (heights.get(key) ?? usual));
    return found;
  };
  // Heights are found anew; the first row that can be seen stays where it is.
  const measure = (change) => {
    const [top, before] = [el.scrollTop, all.length > MANY ? starts() : [0]];
    const seen = before.findIndex((_, place) => before[place + 1] > top);
    const key = top ? all[seen] : undefined;
    change();
    heights.clear();
    const tops = starts();
    rows.style.height = all.length > MANY ? `${tops.at(-1)}px` : "";
    const now = all.length > MANY ? all.indexOf(key) : -1;
    el.scrollTop = now < 0 ? top : top + tops[now] - before[seen];
  };
  // Put into the page what can be seen, a screen more on either side, and the row that Tab reaches.
  const draw = () => {
    const many = all.length > MANY;
    const list = model.get("rows");
    let places = list.map((_, place) => place);
    let tops = [];
    if (many) {
      tops = starts();
      const [from, to] = [el.scrollTop - el.clientHeight, el.scrollTop + 2 * Math.max(el.clientHeight, 200)];
      places = places.filter((place) => (tops[place + 1] > from && tops[place] < to) || all[place] === at);
    }
    const before = drawn;
    drawn = new Map(places.map((place) => [all[place], before.get(all[place]) || made(list[place], many && place)]));
    const there = [...drawn.values()];
    for (const [key, one] of before) if (!drawn.has(key)) one.remove();
    there.forEach((one, place) => {
      if (rows.children[place] !== one) rows.insertBefore(one, rows.children[place] || null);
    });
    if (many) arrange(places, tops);
    mark();
  };
  const arrange = (places, before) => {
    const top = el.scrollTop; // a lower list moves it by itself
    const seen = places.find((place) => before[place + 1] > top) ?? 0; // it stays where it is
    if (el.clientHeight) for (const [key, one] of drawn) if (!heights.has(key)) heights.set(key, one.offsetHeight);
    const tops = starts();
    for (const place of places) row(all[place]).style.top = `${tops[place]}px`;
    rows.style.height = `${tops.at(-1)}px`;
    if (tops[seen] !== before[seen]) el.scrollTop = top + tops[seen] - before[seen];
  };
  const made = (said, place) => {
    const one = element("div", `cv-item ${said.kind ? `cv-${said.kind}` : ""}`);
    one.setAttribute("role", "option");
    one.setAttribute(...QUIET);
    one.dataset.key = said.key;
    one.tabIndex = said.key === at ? 0 : -1;
    if (said.detail) one.setAttribute("aria-label", said.detail);
    if (place !== false) {
      one.setAttribute("aria-setsize", all.length);
      one.setAttribute("aria-posinset", place + 1);
    }
    const [text, [start, stop]] = [element("span", "cv-item-text"), said.strong || [0, 0]];
    text.append(said.text.slice(0, start), element("b", "", said.text.slice(start, stop)), said.text.slice(stop));
    if (said.detail) one.title = said.detail;
    const words = element("span", "cv-item-words");
    words.append(text, " ", element("span", "cv-item-target", said.target));
    one.append(element("span", "cv-item-mark", said.mark), words, element("span", "cv-item-where", said.where));
    return one;
  };
  follow(model, ends, ["rows", "label", "empty"], () => {
    const had = rows.contains(document.activeElement);
    rows.setAttribute("aria-label", model.get("label"));
    measure(() => {
      all = model.get("rows").map((one) => one.key);
      none.textContent = all.length ? "" : model.get("empty");
      none.hidden = Boolean(all.length);
      rows.className = all.length > MANY ? "cv-many" : "";
      rows.replaceChildren();
      drawn = new Map();
    });
    go(all.includes(at) ? at : all[0] ?? null, had);
    reveal();
  });
  follow(model, ends, ["chosen"], () => {
    mark();
    reveal();
  });
  el.addEventListener("scroll", () => { if (all.length > MANY) draw(); }, { passive: true });
  // The row that has the focus, or is chosen, if it could be seen while the box was so high.
  const held = (height) => {
    const focused = rows.contains(document.activeElement) ? document.activeElement : undefined;
    const one = focused ?? (chosen().length === 1 ? row(chosen()[0]) : undefined);
    const top = one ? one.getBoundingClientRect().top - el.getBoundingClientRect().top : -2;
    return top > -1 && top + one.offsetHeight < height + 1 ? one : undefined;
  };
  let [width, height] = [0, 0];
  const watch = new ResizeObserver(() => {
    const one = held(height);
    height = el.clientHeight;
    if (all.length > MANY) {
      if (el.clientWidth !== width) measure(() => {}); // other lines
      width = el.clientWidth;
      draw();
    }
    if (one) settle(one);
  });
  watch.observe(el);
  ends.push(() => watch.disconnect());
  return el;
};
