"use strict";
// Tips, choice of a policy, switches of kinds, and the answer at a target: everything is looked up.
(() => {
  const tip = document.getElementById("tip");
  const marks = [...document.querySelectorAll(".mark")];

  function say(mark) {
    const box = mark.querySelector(".dot").getBoundingClientRect();
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(8, Math.min(room, box.left + box.width / 2 - tip.offsetWidth / 2))}px`;
    tip.style.top = `${Math.max(8, box.top - tip.offsetHeight - 8)}px`;
  }
  const hush = () => { tip.hidden = true; };

  function choose(index) {
    document.querySelectorAll("details.strip").forEach((strip, at) => { strip.open = at === index; });
    marks.forEach((mark) => {
      const chosen = mark.dataset.policy === String(index);
      mark.classList.toggle("chosen", chosen);
      if (mark.hasAttribute("aria-pressed")) mark.setAttribute("aria-pressed", String(chosen));
    });
  }

  for (const mark of marks) {
    const title = mark.querySelector("title");
    mark.dataset.tip = title.textContent; // the browser's own tip would come beside ours
    title.remove();
    mark.addEventListener("pointerenter", () => say(mark));
    mark.addEventListener("pointerleave", hush);
    if (mark.dataset.policy === undefined) continue;
    mark.setAttribute("tabindex", "0");
    mark.setAttribute("role", "button");
    mark.setAttribute("aria-label", mark.dataset.tip);
    mark.setAttribute("aria-pressed", "false");
    mark.addEventListener("focus", () => say(mark));
    mark.addEventListener("blur", hush);
    mark.addEventListener("click", () => choose(Number(mark.dataset.policy)));
    mark.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose(Number(mark.dataset.policy));
    });
  }
  addEventListener("scroll", hush, { capture: true, passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hush(); });

  for (const box of document.querySelectorAll("input[data-shows]")) {
    box.disabled = false;
    box.addEventListener("change", () => {
      document.querySelectorAll(`#chart-front .mark.${box.dataset.shows}`)
        .forEach((mark) => mark.classList.toggle("off", !box.checked));
    });
  }

  const answers = JSON.parse(document.getElementById("answers").textContent);
  const slider = document.getElementById("target");
  const line = document.querySelector("#chart-front .asked");
  function ask() {
    const answer = answers[Number(slider.value)];
    const said = `${answer.target} of the baseline, ${answer.ms}`;
    document.getElementById("target-said").textContent = said;
    slider.setAttribute("aria-valuetext", said);
    document.getElementById("target-answer").textContent =
      answer.policy === null ? `Answer: ${answer.figures}.` : `Answer: ${answer.name}, ${answer.figures}.`;
    line.setAttribute("x1", answer.x);
    line.setAttribute("x2", answer.x);
    line.removeAttribute("hidden");
    if (answer.policy !== null) choose(answer.policy);
  }
  slider.addEventListener("input", ask);
  document.querySelector(".ask").hidden = false;
  document.body.classList.add("scripted");
  const first = answers[Number(slider.value)];
  document.getElementById("target-said").textContent = `${first.target} of the baseline, ${first.ms}`;
  document.getElementById("target-answer").textContent = "Move the slider to see what the front answers.";
})();
