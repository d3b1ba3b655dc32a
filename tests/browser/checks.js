// What a page is looked at for: text that is cut off, words that cannot be read, controls without a
// name of their own.

window.checks = {
  clipped(root) {
    return [...root.querySelectorAll("*")]
      .filter((one) => {
        if (!one.offsetParent || one.closest("select, .cv-grid-box, .cv-status")) return false;
        const style = getComputedStyle(one);
        if (style.clipPath !== "none") return false; // for screen readers alone
        const words = [...one.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        const hides = style.overflowX === "hidden" || style.overflowX === "clip";
        return words && hides && one.scrollWidth > one.clientWidth + 1;
      })
      .map((one) => `${one.className}: ${one.textContent}`);
  },

  // Contrast of a button's words with what is behind them, and its opacity.
  contrast(button) {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const over = (top, below) =>
      below.map((v, i) => (top[i] * top[3]) / 255 + v * (1 - top[3] / 255));
    const layers = [];
    for (let one = button; one; one = one.parentElement) {
      layers.unshift(rgba(getComputedStyle(one).backgroundColor));
    }
    const ground = layers.reduce((below, top) => over(top, below), [255, 255, 255]);
    const ink = over(rgba(getComputedStyle(button).color), ground);
    const light = (colour) => {
      const linear = colour
        .map((v) => v / 255)
        .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
      return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    };
    const [low, high] = [light(ink), light(ground)].sort((a, b) => a - b);
    return [(high + 0.05) / (low + 0.05), Number(getComputedStyle(button).opacity)];
  },

  // Controls without a name, or with the name of another in the same region.
  unnamed(root) {
    const all = "input, textarea, select, button, [role=grid], [role=listbox]";
    const shown = [...root.querySelectorAll(all)].filter((one) => one.offsetParent);
    const name = (one) => {
      const region = one.closest("section")?.getAttribute("aria-label");
      const own = one.getAttribute("aria-label") || one.labels?.[0]?.textContent || one.textContent;
      return `${region}: ${own.trim()}`;
    };
    const names = shown.map(name);
    return names.filter((one, place) => one.endsWith(": ") || names.indexOf(one) !== place);
  },
};
