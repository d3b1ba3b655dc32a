// The widget itself. Once its kernel has gone it says so, and keeps its last picture.

const GONE = "The kernel is gone, so this picture does not change any more. Run the cell again to go on.";
const DEAD = "jupyter-widgets-disconnected"; // ipywidgets says so of the box around the widget

function render({ model, el }) {
  const store = storeOf(model);
  el.classList.add("cv");
  const end = draw(store.root, el);
  const watch = new MutationObserver(look);
  let box = null;
  let asked = 0;

  function look() {
    const dead = box.classList.contains(DEAD);
    if (dead) for (const one of el.querySelectorAll("input, textarea, select, button")) one.disabled = true;
    const whole = el.closest(".cv-playground") || el;
    const told = whole.querySelector(".cv-gone");
    if (dead && !told) {
      const words = element("p", "cv-gone", GONE);
      words.setAttribute("role", "alert");
      whole.prepend(words);
    } else if (!dead && told) told.remove();
  }
  function settle() {
    box = el.parentElement?.closest(".jupyter-widgets");
    if (!box) {
      asked = requestAnimationFrame(settle);
      return;
    }
    watch.observe(box, { attributes: true, attributeFilter: ["class"] });
    look();
  }
  settle();
  return () => {
    cancelAnimationFrame(asked);
    watch.disconnect();
    end();
  };
}

export default { initialize: ({ model }) => { storeOf(model); }, render };
