"""A pytest plugin: every outcome is kept, and every failure said, as it happens.

Pytest says what failed when all is over, which a run that is cut off never reaches.

    python -m pytest -p tests.bench.gpu.outcomes --outcomes FILE
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tokensearch.files import write_whole


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", default=None, help="file that is rewritten after every test")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--outcomes"):
        config.pluginmanager.register(Outcomes(Path(config.getoption("--outcomes"))))


class Outcomes:
    """Writes a JSON list of what became of each test, the last one begun included."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._keep(nodeid, outcome="begun", seconds=0.0, message="")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the first of setup, call and teardown that did not pass, else the call."""
        known = self._found[report.nodeid]
        if known["outcome"] in {"failed", "skipped"} or (report.passed and report.when != "call"):
            return
        message = "" if report.passed else reason(report)
        self._keep(report.nodeid, outcome=report.outcome, seconds=report.duration, message=message)
        if report.failed:
            print(f"\n{report.longreprtext}", flush=True)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._keep(report.nodeid, outcome="failed", seconds=0.0, message=reason(report))

    def _keep(self, test: str, **facts: Any) -> None:
        self._found[test] = {"test": test, **facts}
        write_whole(self._file, json.dumps(list(self._found.values()), indent=1) + "\n")


def reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test failed or was skipped, in a line."""
    if isinstance(report.longrepr, tuple):  # file, line and reason of a skip
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return str(crash.message).splitlines()[0]
    return (report.longreprtext.splitlines() or ["unknown"])[-1]
