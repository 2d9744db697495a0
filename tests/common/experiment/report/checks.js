// Faults of a loaded page, as a list of sentences; [] is none. Evaluated in the browser by test_browser.py.
(() => {
  const faults = [];
  const channels = (text) => {
    const numbers = text.match(/[\d.]+/g).map(Number);
    return numbers.length < 4 ? [...numbers, 1] : numbers;
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3]));
  const background = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(channels(getComputedStyle(e).backgroundColor));
    const start = matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
    return layers.reverse().reduce((below, top) => over(top, below), start);
  };
  const judge = (element, style, text, scale) => {
    const colour = channels(element instanceof SVGElement ? style.fill : style.color);
    const behind = background(element);
    const ratio = contrast(over(colour, behind), behind);
    if (ratio < 4.5) faults.push(`contrast ${ratio.toFixed(2)}: ${text}`);
    const size = parseFloat(style.fontSize) * scale;
    if (size < 14) faults.push(`${size.toFixed(1)} px: ${text}`);
    if (element.matches("p, .verdict li, .notes li") && size < 16) faults.push(`body text of ${size.toFixed(1)} px: ${text}`);
  };

  document.querySelectorAll("details").forEach((e) => (e.open = true));
  const root = document.documentElement;
  const width = root.clientWidth; // innerWidth grows with what overflows where a telephone is emulated
  if (root.scrollWidth > width) faults.push(`scrolls sideways: ${root.scrollWidth} px in ${width}`);

  const seen = new Set();
  let texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    const text = node.textContent.trim();
    if (!text || seen.has(element) || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (element.closest("thead") && getComputedStyle(element.closest("thead")).position === "absolute") continue;
    seen.add(element);
    texts += 1;
    const box = element.getBoundingClientRect();
    if (box.right > width + 1 || box.left < -1) faults.push(`beyond the edge: ${text}`);
    const matrix = element instanceof SVGElement && element.getScreenCTM ? element.getScreenCTM() : null;
    judge(element, getComputedStyle(element), text, matrix ? Math.hypot(matrix.a, matrix.b) : 1);
  }
  for (const element of document.querySelectorAll("td[data-label]")) {
    const style = getComputedStyle(element, "::before");
    if (element.checkVisibility() && style.content !== "none") judge(element, style, `label ${element.dataset.label}`, 1);
  }
  if (texts < 20) faults.push(`only ${texts} texts are visible`);

  for (const figure of document.querySelectorAll("figure")) {
    const drawing = figure.querySelector("svg");
    const box = drawing ? drawing.getBoundingClientRect() : { width: 0, height: 0 };
    const inked = drawing ? [...drawing.querySelectorAll("path, use")].some((e) => e.getBoundingClientRect().width > 20) : false;
    if (box.width < 250 || box.height < 60 || !inked) faults.push(`figure ${figure.id} is not visible`);
    if (!figure.querySelector("[role=img]")?.getAttribute("aria-label")) faults.push(`figure ${figure.id} has no alt text`);
    if (!figure.querySelector("figcaption")?.textContent.trim()) faults.push(`figure ${figure.id} has no caption`);
  }
  for (const image of document.images) {
    if (!image.complete || !image.naturalWidth || image.getBoundingClientRect().width < 40) faults.push(`picture ${image.alt} is not visible`);
    if (!image.alt) faults.push("a picture has no alt text");
  }
  return faults;
})();
