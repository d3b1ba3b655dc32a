// A tree of nodes, drawn from what Python says and kept as it changes. All of a panel is one widget,
// so a notebook holds a handful of them; each node behaves as a widget's model would.

const KINDS = {};
const STORES = new Map(); // by widget: its views share what the page knows
const PAUSE = 40; // milliseconds between two messages of what a person changes

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

let count = 0;
const unique = () => `cv-${(count += 1)}-${Math.random().toString(36).slice(2, 7)}`;
const same = (one, other) => one === other || JSON.stringify(one) === JSON.stringify(other);

class NodeModel {
  constructor(store, said) {
    this.store = store;
    this.key = said.key;
    this.kind = said.kind;
    this.state = said.state;
    this.children = [];
    this.heard = new Map();
  }
  get(name) {
    return this.state[name];
  }
  set(name, value) {
    this.store.owe(this.key, name, value);
    this.patch({ [name]: value });
  }
  save_changes() {
    this.store.push();
  }
  send(content, buffers) {
    this.store.flush();
    this.store.model.send({ message: [this.key, content] }, undefined, buffers || []);
  }
  on(event, act) {
    if (!this.heard.has(event)) this.heard.set(event, new Set());
    this.heard.get(event).add(act);
  }
  off(event, act) {
    this.heard.get(event)?.delete(act);
  }
  emit(event, ...told) {
    for (const act of [...(this.heard.get(event) || [])]) act(...told);
  }
  patch(state) {
    const changed = Object.keys(state).filter((name) => !same(this.state[name], state[name]));
    Object.assign(this.state, state);
    for (const name of changed) this.emit(`change:${name}`);
  }
}

class Store {
  constructor(model) {
    this.model = model;
    this.nodes = new Map();
    this.owed = {};
    this.last = 0;
    this.timer = null;
    this.root = this.add(model.get("tree"));
    model.on("msg:custom", (content, buffers) => this.hear(content, buffers));
    model.send({ hello: true });
  }
  add(said) {
    const node = new NodeModel(this, { ...said, state: { ...said.state } });
    this.nodes.set(node.key, node);
    node.children = (said.children || []).map((child) => this.add(child));
    return node;
  }
  hear(content, buffers) {
    for (const [key, state] of Object.entries(content.patch || {})) this.nodes.get(key)?.patch(state);
    if (content.tree) this.renew(content.tree);
    if (content.message) this.nodes.get(content.message[0])?.emit("message", content.message[1], buffers);
  }
  renew(said) {
    const owed = this.owed[said.key] || {}; // what a person has changed since is newer
    this.nodes.get(said.key)?.patch({ ...said.state, ...owed });
    for (const child of said.children || []) this.renew(child);
  }
  owe(key, name, value) {
    (this.owed[key] ||= {})[name] = value;
  }
  push() {
    if (this.timer !== null) return;
    const wait = this.last + PAUSE - performance.now();
    if (wait <= 0) this.flush();
    else this.timer = setTimeout(() => this.flush(), wait);
  }
  flush() {
    clearTimeout(this.timer);
    this.timer = null;
    if (!Object.keys(this.owed).length) return;
    this.last = performance.now();
    this.model.send({ set: this.owed });
    this.owed = {};
  }
}

function storeOf(model) {
  const key = model.get("uid");
  if (!STORES.has(key)) STORES.set(key, new Store(model));
  return STORES.get(key);
}

// Draw a node and what is within it; the result takes it away.
function draw(model, parent) {
  const ends = [];
  const child = (node, place) => ends.push(draw(node, place));
  const el = KINDS[model.kind]({ model, child, ends });
  const fixed = el.className;
  const dress = () => {
    el.className = `${fixed} ${model.get("classes") || ""}`.trim();
    const hide = Boolean(model.get("hidden"));
    if (hide && !el.hidden && el.contains(document.activeElement)) leave(el);
    el.hidden = hide;
  };
  for (const name of ["classes", "hidden"]) {
    model.on(`change:${name}`, dress);
    ends.push(() => model.off(`change:${name}`, dress));
  }
  dress();
  parent.append(el);
  return () => {
    for (const end of ends) end();
    el.remove();
  };
}

// The focus moves to what stands before `el`, never to the page's body, nor to what takes something away.
function leave(el) {
  const place = el.closest(".cv-playground") || el.closest(".cv");
  const all = [...place.querySelectorAll("input, textarea, select, button:not([data-look=quiet]), [tabindex='0']")];
  const open = all.filter((one) => !el.contains(one) && one.offsetParent !== null && one.tabIndex >= 0);
  const before = open.filter((one) => one.compareDocumentPosition(el) & Node.DOCUMENT_POSITION_FOLLOWING);
  (before.at(-1) || open[0] || place).focus({ preventScroll: true });
}

// Listen for as long as the node is drawn.
function listen(model, ends, event, act) {
  model.on(event, act);
  ends.push(() => model.off(event, act));
}

function follow(model, ends, names, act) {
  for (const name of names) listen(model, ends, `change:${name}`, act);
  act();
}
