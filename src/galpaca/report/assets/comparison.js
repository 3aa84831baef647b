// Shows one measure of the loss at a time, and the answers of one category or all.
(() => {
  "use strict";
  const all = (selector) => [...document.querySelectorAll(selector)];

  for (const input of all("input[name=measure]")) {
    input.addEventListener("change", () => {
      for (const part of all("[data-measure]")) part.hidden = part.dataset.measure !== input.value;
    });
  }

  const asked = all(".asked"), differ = document.getElementById("differ"), shown = document.getElementById("shown");
  function filter() {
    const category = document.querySelector("input[name=category]:checked").value;
    let number = 0;
    for (const one of asked) {
      one.hidden = (category !== "" && one.dataset.category !== category) || (differ.checked && one.dataset.same === "true");
      if (!one.hidden) number += 1;
    }
    shown.textContent = number === asked.length ? `${number} prompts` : `${number} of ${asked.length} prompts`;
  }
  for (const input of [...all("input[name=category]"), differ]) input.addEventListener("change", filter);
  for (const tools of all("[data-script]")) tools.hidden = false;
  filter();
})();
