() => {
  const shown = (e) => e.getClientRects().length > 0 && getComputedStyle(e).visibility !== "hidden";
  const rgb = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const contrast = (one, other) => {
    const [low, high] = [light(rgb(one)), light(rgb(other))].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (rgb(colour).length === 3) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const pale = new Set();
  for (const e of document.querySelectorAll("body *")) {
    const says = [...e.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!says || !shown(e)) continue;
    const style = getComputedStyle(e);
    const ratio = contrast(e.closest("svg") ? style.fill : style.color, behind(e));
    if (ratio < 4.5) pale.add(`${e.tagName}.${e.className?.baseVal ?? e.className} ${ratio.toFixed(2)}: ${e.textContent.trim().slice(0, 30)}`);
  }
  const probe = document.body.appendChild(document.createElement("i"));
  for (let tone = 0; tone < 6; tone++) {
    probe.style.color = `var(--s-${tone})`;
    const ratio = contrast(getComputedStyle(probe).color, getComputedStyle(document.body).backgroundColor);
    if (ratio < 3) pale.add(`series ${tone} ${ratio.toFixed(2)}`);
  }
  probe.remove();
  const overprinted = [], outside = [], empty = [], width = document.documentElement.clientWidth;
  for (const chart of document.querySelectorAll("figure svg")) {
    const name = chart.getAttribute("aria-label"), texts = [...chart.querySelectorAll("text")].filter((text) => text.textContent.trim());
    const boxes = texts.map((text) => text.getBoundingClientRect());
    texts.forEach((text, i) => {
      if (boxes[i].left < -1 || boxes[i].right > width + 1) outside.push(`${name}: ${text.textContent}`);
      for (let j = 0; j < i; j++) {
        const across = Math.min(boxes[i].right, boxes[j].right) - Math.max(boxes[i].left, boxes[j].left);
        const down = Math.min(boxes[i].bottom, boxes[j].bottom) - Math.max(boxes[i].top, boxes[j].top);
        // Turned labels of an axis lie in boxes that overlap although their letters do not.
        const turned = [text, texts[j]].some((one) => /rotate\((?!-0)/.test(one.getAttribute("transform") ?? ""));
        if (across > 2 && down > 3 && !turned) overprinted.push(`${name}: ${texts[j].textContent} / ${text.textContent}`);
      }
    });
    if (!/var\(--s-\d\)/.test(chart.innerHTML)) empty.push(name);
  }
  return {
    overflow: document.documentElement.scrollWidth - width,
    charts: document.querySelectorAll("figure svg").length,
    pale: [...pale], overprinted, outside, empty,
    dead_links: [...document.querySelectorAll('a[href^="#"]')].map((a) => a.getAttribute("href")).filter((to) => !document.querySelector(to)),
    unreachable: [...document.querySelectorAll(".scroll")].filter((e) => e.tabIndex !== 0 || !e.getAttribute("aria-label")).length,
    unnamed: [...document.querySelectorAll("figure svg")].filter((e) => !e.getAttribute("aria-label")).length,
  };
}
