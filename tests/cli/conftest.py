"""What commands work on, short in what takes time for precision."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.ledgers import baseline, candidate
from tests.search import tiny
from tests.short import few_candidates, short_profiles
from tokensearch.policy import Policy, Pool, save
from tokensearch.records.profile_file import profile_to_json
from tokensearch.runtime import describe


@pytest.fixture(scope="package", autouse=True)
def _short() -> Iterator[None]:
    with short_profiles(), few_candidates():
        yield


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.json"
    save(Policy(describe(tiny.model()), (Pool(2, 8),)), path)
    return path


@pytest.fixture(params=["ending:model", "os:abort", "hf-hub:nobody/model", "local-dir:/nowhere"])
def ending(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A model that no file may have loaded: code, or what lies elsewhere."""
    (tmp_path / "ending.py").write_text(
        "import pathlib; pathlib.Path(__file__).with_name('imported').touch(); raise SystemExit(0)"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield request.param
    assert not (tmp_path / "imported").exists()


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, Path]:
    """Two profiles whose every term is known."""
    paths = tmp_path / "one.json", tmp_path / "other.json"
    for path, profile in zip(paths, (baseline(), candidate()), strict=True):
        path.write_text(json.dumps(profile_to_json(profile)))
    return paths
