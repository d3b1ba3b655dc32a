// Plotly's widget is drawn before it has a place, and then listens to the window alone: tell it
// whenever the box that both stand in has another size.

function render({ el }) {
  const observer = new ResizeObserver(() => {
    if (el.parentElement) observer.observe(el.parentElement);
    if (el.offsetWidth) window.dispatchEvent(new Event("resize")); // 0 where the box is hidden
  });
  observer.observe(el);
  return () => observer.disconnect();
}

export default { render };
