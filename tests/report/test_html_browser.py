"""The page in a real Chromium, driven by a script of the test's own: no other package is needed.

The script is added to a copy of the page, does what a reader would, and leaves what it saw in the
document, which Chromium prints.
"""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.report.fixtures import run_folder
from tests.report.test_html import Reader
from tests.report.test_patches import demo_traces
from tokensearch.records.patch_trace import write_traces
from tokensearch.report.run.page import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.long

ERRORS = """<script>
window.said = [];
addEventListener("error", (event) => said.push(String(event.message || event.target.src)), true);
for (const level of ["error", "warn"]) console[level] = (...words) => said.push(words.join(" "));
</script>"""
WATCH = """<script>addEventListener("load", () => {
const seen = {}, one = (name) => document.querySelector(name);
const visible = (element) => element.getClientRects().length > 0;
%s
const note = document.createElement("pre");
note.id = "seen";
note.textContent = JSON.stringify({...seen, said});
document.body.append(note);
});</script>"""


def see(page: Path, script: str) -> dict[str, Any]:
    """Load a page with a script at its end; return what that saw."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    text = page.read_text(encoding="utf-8")
    copy = page.with_name("watched.html")
    watched = text.replace("<head>", f"<head>{ERRORS}", 1)
    copy.write_text(watched.replace("</body>", f"{WATCH % script}</body>"), encoding="utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000")
    profile = f"--user-data-dir={page.parent / 'profile'}"
    done = subprocess.run(
        [CHROMIUM, *options, profile, "--dump-dom", copy.resolve().as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)
    assert found is not None, done.stderr[-2000:]
    seen: dict[str, Any] = json.loads(unescape(found[1]))
    return seen


def test_each_interaction_does_what_it_says(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    write_traces(demo_traces(), folder.patches)

    seen = see(
        write_report(folder),
        """
        const preset = one(".mark.preset"), control = one(".mark.control");
        preset.focus();
        preset.dispatchEvent(new FocusEvent("focus"));
        seen.tip = one("#tip").textContent;
        seen.tipped = visible(one("#tip"));
        dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"}));
        seen.hushed = !visible(one("#tip"));
        preset.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"}));
        const opened = document.querySelectorAll("details.strip[open] > summary");
        seen.opened = [...opened].map((summary) => summary.textContent.trim());
        seen.pressed = preset.getAttribute("aria-pressed");
        seen.before = visible(control);
        one("input[data-shows=control]").click();
        seen.after = visible(control);
        const slider = one("#target");
        slider.value = 70; // 0.75x: targets begin at 0.05x
        slider.dispatchEvent(new Event("input"));
        seen.answer = one("#target-answer").textContent;
        seen.spoken = slider.getAttribute("aria-valuetext");
        seen.picture = one("img.patches").naturalWidth;
        """,
    )

    assert "tome-r16" in seen["tip"]
    assert (seen["tipped"], seen["hushed"]) == (True, True)
    assert (seen["opened"], seen["pressed"]) == (["tome-r16"], "true")
    assert (seen["before"], seen["after"]) == (True, False)
    assert seen["answer"].startswith("Answer: found b19998e4")
    assert seen["spoken"].startswith("0.75x of the baseline")
    assert seen["picture"] > 600
    assert seen["said"] == []


def test_on_a_telephone_nothing_but_tables_and_pictures_is_wider_than_the_page(
    tmp_path: Path,
) -> None:
    page = write_report(run_folder(tmp_path))

    seen = see(
        page,
        """
        document.body.style.width = "390px";
        seen.wide = [...document.querySelectorAll("h1, h2, p, li")]
          .filter((part) => !part.closest(".scroll, table, .fall, .blocks"))
          .filter((part) => part.getBoundingClientRect().right > 391)
          .map((part) => part.textContent.slice(0, 60));
        const right = (part) => part.getBoundingClientRect().right;
        seen.charts = [...document.querySelectorAll("svg")].map(right);
        seen.boxes = [...document.querySelectorAll("table")].map((table) => {
          const box = table.closest(".scroll");
          return [right(box) < 391, getComputedStyle(box).overflowX];
        });
        """,
    )

    assert seen["wide"] == []
    assert seen["charts"]
    assert max(seen["charts"]) < 391  # charts shrink
    assert set(map(tuple, seen["boxes"])) == {(True, "auto")}  # tables scroll in a box of theirs
    assert seen["said"] == []


def test_without_scripts_tables_stay_and_controls_do_not(tmp_path: Path) -> None:
    reader = Reader(write_report(run_folder(tmp_path)).read_text(encoding="utf-8"))

    assert len(reader.tables["table-front"]) > 3
    (ask,) = [attrs for tag, attrs in reader.tags if attrs.get("class") == "ask"]
    assert "hidden" in ask
    boxes = [attrs for _, attrs in reader.tags if "data-shows" in attrs]
    assert boxes
    assert all("disabled" in attrs for attrs in boxes)
