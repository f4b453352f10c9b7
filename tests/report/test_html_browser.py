"""The page in a real Chromium, where playwright and Debian's chromium are installed."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.fixtures import run_folder
from tokensearch.report.run.page import write_report

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.long


@pytest.fixture
def browser() -> Iterator[Any]:
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    with driver.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def test_each_interaction_does_what_it_says(browser: Any, tmp_path: Path) -> None:
    address = write_report(run_folder(tmp_path)).resolve().as_uri()
    page, said = browser.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)

    page.locator(".mark.preset").first.focus()
    assert "tome-r16" in page.locator("#tip").inner_text()

    page.keyboard.press("Enter")
    opened = page.locator("details.strip[open] > summary").all_inner_texts()
    assert opened == ["tome-r16"]

    page.locator("input[data-shows=control]").uncheck()
    assert not page.locator(".mark.control").first.is_visible()

    page.locator("#target").fill("70")  # 0.75x: targets begin at 0.05x
    assert page.locator("#target-answer").inner_text().startswith("Answer: found b19998e4")
    assert said == []


def test_without_scripts_tables_stay_and_controls_do_not(browser: Any, tmp_path: Path) -> None:
    address = write_report(run_folder(tmp_path)).resolve().as_uri()
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(address)

    assert page.locator("#table-front").is_visible()
    assert not page.locator("#target").is_visible()
    assert page.locator("input[data-shows=control]").is_disabled()
