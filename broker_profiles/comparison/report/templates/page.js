"use strict";
// Filters, and links that open what they lead to. Without this the page can be read all the same.
(() => {
  const form = document.getElementById("filters");
  const shown = document.getElementById("shown");
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const checked = (name) => new Set(all(`input[name=${name}]:checked`, form).map((box) => box.value));

  function filter() {
    const columns = checked("column");
    const standings = checked("standing");
    const wanted = form.elements.promise.value;
    const isWanted = (id) => !wanted || id === wanted || (wanted.endsWith("-") && id.startsWith(wanted));
    for (const part of all("[data-column]")) {
      part.hidden = part.dataset.column !== "" && !columns.has(part.dataset.column);
    }
    let cells = 0;
    for (const row of all("tr[data-promise]")) {
      let left = 0;
      for (const cell of all("td[data-standing]", row)) {
        const off = !standings.has(cell.dataset.standing);
        cell.classList.toggle("off", off);
        if (!off && !cell.hidden) left += 1;
      }
      row.hidden = !left || !isWanted(row.dataset.promise);
      if (!row.hidden) cells += left;
    }
    for (const part of all("section[data-promise]")) {
      for (const card of all("details[data-standing]", part)) {
        card.hidden ||= !standings.has(card.dataset.standing);
      }
      part.hidden = !isWanted(part.dataset.promise) || !part.querySelector("details[data-standing]:not([hidden])");
    }
    for (const panel of all(".panel, .charts")) {
      panel.hidden = !panel.querySelector("[data-column]:not([hidden])");
    }
    spanGroups();
    shown.textContent = `${cells} ${cells === 1 ? "cell" : "cells"} shown`;
  }

  // A heading over several columns is as wide as those of them that are shown.
  function spanGroups() {
    for (const group of all("tr.groups th")) {
      const baseline = group.classList.contains("baseline");
      const own = all(`thead th[data-column]${baseline ? ".baseline" : ":not(.baseline)"}:not([hidden])`);
      group.hidden = !own.length;
      group.colSpan = Math.max(1, own.length);
    }
  }

  // A link to something inside a closed part opens it, as browsers do; one to what is filtered out shows it.
  function open() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.closest("[hidden]")) {
      form.reset();
      filter();
    }
    const details = target.closest("details");
    if (details) details.open = true;
    const seen = details ? details.querySelector("summary") : target;
    seen.scrollIntoView();
    seen.focus({ preventScroll: true });
  }

  document.getElementById("only-broken").addEventListener("click", () => {
    for (const box of all("input[name=standing]", form)) {
      box.checked = ["broken-promise", "broken", "not-offered", "error"].includes(box.value);
    }
    filter();
  });
  form.addEventListener("change", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  window.addEventListener("hashchange", open);
  const box = document.getElementById("filter-box");
  box.hidden = false;
  box.open = !matchMedia("(max-width: 52rem)").matches;
  filter();
  open();
})();
