"""How tests call `profile` and `diff`: on a tiny model, whose passes take no time."""

from pathlib import Path

import torch
from typer.testing import CliRunner, Result

from tokensearch.cli.main import app

TINY = ("--model", "tests.search.tiny:model", "--batch-size", "2", "--seconds", "1")


def run(*args: str | Path) -> Result:
    found = CliRunner().invoke(app, list(map(str, args)))
    assert isinstance(found.exception, SystemExit | None), found.exception
    return found


def trace_of(path: Path, *, width: int) -> Path:
    layer, x = torch.nn.Linear(width, width), torch.ones(64, width)
    with torch.inference_mode(), torch.profiler.profile(acc_events=True) as profiler:
        layer(x)
    profiler.export_chrome_trace(str(path))
    return path


def refused(*args: str | Path) -> str:
    found = run("diff", *args)
    assert found.exit_code == 1, found.output
    assert found.stdout == ""
    said = found.stderr[found.stderr.index("error: ") :]
    _, *notes = said.splitlines()
    assert all(note.startswith("  ") for note in notes)
    return said


def unused_clock(*_: object, **__: object) -> None:
    raise AssertionError("what is refused must be refused before anything is timed")
