// What the page gains with scripts: a filter of the requirements, buttons that copy, everything unfolded in print.
// It shows and hides what stands in the page, and never makes elements out of texts.
"use strict";

const rows = [...document.querySelectorAll("tr[data-result]")];
const form = document.getElementById("filter");
if (form) {
  const [words, result] = [form.querySelector("input"), form.querySelector("select")];
  const shown = document.getElementById("shown");
  const apply = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = (!result.value || row.dataset.result === result.value) && wanted.every((word) => text.includes(word));
      row.hidden = !fits;
      count += fits;
    }
    for (const section of document.querySelectorAll("section.requirements-of")) {
      section.hidden = !section.querySelector("tr[data-result]:not([hidden])");
    }
    shown.textContent = `${count} of ${rows.length}`;
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  // A link to a requirement that the filter hides takes the filter away.
  addEventListener("hashchange", () => {
    const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (row && row.hidden) {
      form.reset();
      apply();
      row.scrollIntoView();
    }
  });
  apply();
}

for (const box of document.querySelectorAll(".copying")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    const text = box.querySelector("pre").textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      // Without the right to the clipboard the text is selected, so that one key copies it.
      getSelection().selectAllChildren(box.querySelector("pre"));
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  box.append(button);
}

let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll(".finding details:not([open])")];
  for (const details of folded) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
});
