// One cursor for all charts: where one is pointed at, every chart shows its values at that moment.
"use strict";
(() => {
  const [begin, end] = JSON.parse(document.querySelector("main").dataset.span || "[0, 1]");
  const charts = Array.from(document.querySelectorAll("figure.chart"), (figure) => ({
    plot: figure.querySelector(".plot"),
    drawings: Array.from(figure.querySelectorAll(".drawing")),
    cells: Array.from(figure.querySelectorAll("td.now")),
    head: figure.querySelector("th.now"),
    lines: JSON.parse(figure.querySelector("script").textContent),
  }));
  const format = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
  let at = null;

  // The first sample that ends at or after a moment; none where the line is broken.
  function valueAt({ t, v }, moment) {
    let low = 0, high = t.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (t[middle] < moment) low = middle + 1; else high = middle;
    }
    return low < t.length && low > 0 ? v[low] : null;
  }

  function point(moment) {
    at = Math.min(end, Math.max(begin, moment));
    document.body.classList.add("pointed");
    for (const chart of charts) {
      for (const drawing of chart.drawings) {
        const { left, width } = drawing.dataset;
        const x = Number(left) + Number(width) * (at - begin) / (end - begin);
        const cursor = drawing.querySelector(".cursor");
        cursor.setAttribute("x1", x);
        cursor.setAttribute("x2", x);
      }
      chart.head.textContent = `${at < 0 ? "−" : "+"}${Math.abs(at).toFixed(1)} s`;
      chart.lines.forEach((line, index) => {
        const value = valueAt(line, at);
        chart.cells[index].textContent = value === null ? "–" : format.format(value);
      });
    }
  }

  function leave() {
    at = null;
    document.body.classList.remove("pointed");
  }

  function pointAt(event) {
    const drawing = event.target.closest(".drawing");
    if (!drawing) return;
    const box = drawing.getBoundingClientRect();
    const across = (event.clientX - box.left) / box.width * drawing.viewBox.baseVal.width;
    point(begin + (across - Number(drawing.dataset.left)) / Number(drawing.dataset.width) * (end - begin));
  }

  const steps = { ArrowLeft: -1, ArrowRight: 1 };
  for (const { plot } of charts) {
    plot.addEventListener("pointermove", pointAt);
    plot.addEventListener("pointerdown", pointAt);
    plot.addEventListener("pointerleave", leave);
    plot.addEventListener("blur", leave);
    plot.addEventListener("keydown", (event) => {
      if (event.key === "Escape") leave();
      if (!(event.key in steps)) return;
      event.preventDefault();
      point(at === null ? 0 : Math.round(at + steps[event.key]));
    });
  }
  document.documentElement.classList.add("live");
})();
