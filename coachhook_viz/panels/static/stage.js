// The place of the whole playground: as high as the notebook's window, and steered by arrow keys
// while it is presented. Its twin that needs no kernel stays away as long as it is alive.

const YOUNG = 60; // seconds: a page that is loaded again later stays where it is

KINDS.stage = ({ model, ends }) => {
  const el = element("span");
  let root = null;
  let gone = false;
  const measure = (scroller) => {
    const above = scroller ? 0 : Math.min(root.getBoundingClientRect().top + window.scrollY, 120);
    const room = (scroller || document.documentElement).clientHeight - above;
    root.style.setProperty("--cv-height", `${Math.max(room, 320)}px`);
  };
  const keys = (event) => {
    if (!root.contains(event.target) && event.target !== document.body) return;
    if (!root.classList.contains("cv-present") || event.target.closest("input, textarea, select, [role=grid], [role=listbox]")) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    model.send({ step });
  };
  const twins = () => root.closest(".jp-OutputArea")?.querySelectorAll(".cv-twin") || [];
  const hideTwins = (hide) => {
    for (const twin of twins()) (twin.closest(".jp-OutputArea-child") || twin).style.display = hide ? "none" : "";
  };
  const settle = () => {
    root = el.closest(".cv-playground");
    if (gone) return undefined;
    if (!root) return requestAnimationFrame(settle);
    const scroller = root.closest(".jp-WindowedPanel-outer, .jp-Notebook");
    root.tabIndex = -1;
    const watch = new ResizeObserver(() => measure(scroller));
    for (const one of [scroller || document.documentElement, document.body]) watch.observe(one);
    const resized = () => measure(scroller);
    window.addEventListener("resize", resized);
    document.addEventListener("keydown", keys, true);
    const area = root.closest(".jp-OutputArea");
    const more = new MutationObserver(() => hideTwins(true));
    if (area) more.observe(area, { childList: true, subtree: false });
    hideTwins(true);
    const young = Date.now() / 1000 - model.get("made") < YOUNG;
    if (scroller && young) { // its cell has just been run
      const seen = new MutationObserver(() => show());
      const show = () => {
        if (!root.querySelector(".cv-bench")) return;
        seen.disconnect();
        requestAnimationFrame(() => root.scrollIntoView({ block: "start" }));
      };
      seen.observe(root, { childList: true });
      show();
    }
    ends.push(() => {
      watch.disconnect();
      more.disconnect();
      window.removeEventListener("resize", resized);
      document.removeEventListener("keydown", keys, true);
    });
    return undefined;
  };
  ends.push(() => {
    gone = true;
  });
  requestAnimationFrame(settle);
  return el;
};
