"""Files of version 1, written by tokensearch 0.1.0 on 2026-11-27 and never changed since.

`ledger.json` is the ledger of `tests.report.ledgers.of_known_terms`.
`demo_run` is a run of the bundled model that missed its target, with a profile and a cost table;
`tiny_run` one of `tests.search.tiny` that met it, timed by multiply-accumulates.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.report.ledgers import of_known_terms
from tests.search.clockless import no_clock, timing
from tests.search.tiny import Quiet
from tokensearch.cli.main import app
from tokensearch.cli.operands import read_operand
from tokensearch.costs import load_costs
from tokensearch.errors import TokensearchWarning
from tokensearch.policy import Goal, Policy, load, load_set, parse_target
from tokensearch.records.profile import Profile
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import RunDocument
from tokensearch.report.diff.to_json import ledger_to_json
from tokensearch.retime.retarget import Retarget, read_finished
from tokensearch.search.resume import read_trials

GOLDEN = Path(__file__).parent / "golden"

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(params=["demo_run", "tiny_run"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    """A copy of an old run."""
    shutil.copytree(GOLDEN / request.param, tmp_path / "old")
    return RunFolder(tmp_path / "old")


def test_an_old_policy_is_read() -> None:
    policy = load(GOLDEN / "tiny_run" / "policy.json")

    assert policy.model.blocks == 6
    assert policy.reduces
    assert policy.evidence


def test_an_old_front_answers_by_its_evidence() -> None:
    policies = load_set(GOLDEN / "tiny_run" / "front.json")

    with pytest.warns(TokensearchWarning, match="its medians decide alone"):
        assert policies.best(latency="0.6x").reduces


def test_the_trials_of_an_old_run_are_read(old: RunFolder) -> None:
    trials = read_trials(old)

    assert trials[0].origin == "none"
    assert all(trial.accuracy.images > 0 for trial in trials)


def test_the_report_of_an_old_run_is_drawn_again(old: RunFolder) -> None:
    result = CliRunner().invoke(app, ["report", str(old.path)])

    assert result.exit_code == 0, result.output
    assert old.report.read_text().count("| ") > 20  # its tables


def test_an_old_run_answers_another_target(tmp_path: Path) -> None:
    source = shutil.copytree(GOLDEN / "tiny_run", tmp_path / "old")
    target = parse_target("0.7x")

    with no_clock():
        document = Retarget(
            read_finished(RunFolder(source)),
            RunFolder(tmp_path / "new"),
            timing(),
            Goal(target),
            Quiet(),
            "tokensearch retarget",
        ).run()

    assert document.finished.outcome == "met"


def said_again(written: Any, again: Any, path: str = "") -> None:
    """Hold that nothing of a document was lost or changed; what newer versions add is null."""
    if not isinstance(written, dict):
        assert again == written, path
        return
    for name, value in written.items():
        said_again(value, again[name], f"{path}.{name}")
    assert all(value is None for name, value in again.items() if name not in written), path


@pytest.mark.parametrize("run", ["demo_run", "tiny_run"])
def test_an_old_run_is_written_as_it_was(run: str) -> None:
    written = json.loads((GOLDEN / run / "run.json").read_text())

    said_again(written, RunDocument.from_json(written).to_json())


def test_an_old_profile_is_read() -> None:
    profile = read_operand(str(GOLDEN / "demo_run" / "profiles" / "baseline.json"))

    assert isinstance(profile, Profile)
    assert profile.plain.median_ms > 0
    assert profile.patch_tokens == (196,) * 12


def test_an_old_cost_table_predicts() -> None:
    table = load_costs(GOLDEN / "demo_run" / "costs.json")

    assert table.ratio(Policy(table.model)) == 1.0


def shape_of(value: Any) -> Any:
    """A document without its figures, which depend on the release of numpy in the last digits."""
    if isinstance(value, dict):
        return {name: shape_of(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape_of(item) for item in value]
    return "a number" if type(value) in {int, float} else value


def test_a_ledger_is_written_as_it_was() -> None:
    old = json.loads((GOLDEN / "ledger.json").read_text())
    new = json.loads(json.dumps(ledger_to_json(of_known_terms())))

    old["baseline"]["name"] = new["baseline"]["name"]  # the profile was called otherwise
    for side in ("baseline", "candidate"):
        assert new[side]["cell"].pop("kernels") is None  # newer than the file
    assert new.pop("floor_gap_ms") is None  # these too
    assert new.pop("floor_closing") == 0
    for document in (new, old):
        assert document.pop("words")  # which may become better
    assert (new["format"], new["version"]) == (old["format"], old["version"])
    assert shape_of(new) == shape_of(old)
    assert new["difference_ms"]["value"] == pytest.approx(old["difference_ms"]["value"], rel=1e-6)
