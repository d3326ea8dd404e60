// Asks for the page anew while somebody looks; htmx does the rest. No eval, no inline style.
(() => {
  "use strict";
  const EVERY = 2000; // milliseconds
  const LOST_AFTER = 3; // polls without an answer
  let held = false;
  let misses = 0;

  const root = () => document.getElementById("gomq-live");

  const show = () => {
    const [word, state] = held
      ? ["Held", "held"]
      : misses >= LOST_AFTER
        ? ["No answer, still trying", "lost"]
        : ["Live", "live"];
    document.body.dataset.gomqLive = state;
    const at = document.getElementById("g-live-word");
    if (at) at.textContent = word;
    const toggle = document.getElementById("g-hold");
    if (toggle) {
      toggle.setAttribute("aria-pressed", held);
      toggle.textContent = held ? "Go on" : "Hold";
    }
  };

  // What somebody types or chooses is not taken out of their hands.
  const isTouched = () => {
    const at = document.activeElement;
    const isField = at?.matches("input:not([type=hidden]), select, textarea");
    return (isField && root().contains(at)) || root().querySelector("input[type=checkbox]:checked");
  };

  const poll = () => {
    if (held || document.hidden || isTouched()) return;
    root().dispatchEvent(new Event("gomq:tick"));
  };

  // The value under the pointer, in all charts at once: the keys of a chart say it.
  let pointed = null; // share of the width
  const tell = () => {
    for (const chart of document.querySelectorAll(".g-chart[data-told]")) {
      const { from, to } = chart.dataset;
      const keys = chart.closest("figure").querySelectorAll(".g-key b");
      const line = chart.querySelector(".g-at");
      const x = pointed === null ? -9 : +from + pointed * (to - from);
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
      JSON.parse(chart.dataset.told).forEach((values, index) => {
        const place = Math.round((pointed ?? 1) * (values.length - 1));
        if (keys[index]) keys[index].textContent = values[place];
      });
    }
  };

  const point = (event) => {
    const chart = event.target.closest?.(".g-chart[data-told]");
    const before = pointed;
    pointed = null;
    if (chart) {
      const box = chart.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
      const { from, to } = chart.dataset;
      pointed = Math.min(1, Math.max(0, (x - from) / (to - from)));
    }
    if (pointed !== before) tell();
  };

  document.addEventListener("click", (event) => {
    if (event.target.id !== "g-hold") return;
    held = !held;
    show();
  });
  document.addEventListener("visibilitychange", poll);
  document.addEventListener("pointermove", point);
  document.addEventListener("htmx:after:swap", (event) => {
    if (event.detail?.ctx?.response?.status >= 400) return;
    misses = 0;
    show();
    tell();
  });
  for (const name of ["htmx:error", "htmx:response:error"]) {
    document.addEventListener(name, () => {
      misses += 1;
      show();
    });
  }
  if (root()?.hasAttribute("hx-get")) {
    setInterval(poll, EVERY);
    show();
  }
  tell();
})();
