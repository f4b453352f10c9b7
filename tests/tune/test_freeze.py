import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.policy.test_per_image import POLICY
from tests.policy.test_policy import SPEC
from tokensearch.cli.main import app
from tokensearch.errors import PolicyError
from tokensearch.policy import Policy, Prune, load, save
from tokensearch.tune.thresholds import freeze


def test_the_static_twin_keeps_the_mean_counts_by_the_same_scores() -> None:
    twin = freeze(POLICY)

    score = "head_weighted_class_attention"
    assert twin.steps == (Prune(1, 9, score, at="block_end"), Prune(2, 4, score, at="block_end"))
    assert twin.counts == "static"
    assert twin.patch_tokens_per_block == POLICY.patch_tokens_per_block
    assert twin.provenance["frozen from"] == POLICY.schedule_hash


def test_a_static_policy_has_nothing_to_freeze() -> None:
    with pytest.raises(PolicyError, match="keeps equal counts for all images already"):
        freeze(Policy(SPEC, (Prune(1, 9),)))


def test_the_verb_writes_the_twin_beside_the_policy(tmp_path: Path) -> None:
    save(POLICY, tmp_path / "mine.json")

    done = CliRunner().invoke(app, ["tune", "freeze", str(tmp_path / "mine.json"), "--json"])

    assert done.exit_code == 0, done.output
    assert load(tmp_path / "mine-static.json") == freeze(POLICY)
    assert json.loads(done.stdout)["file"] == str(tmp_path / "mine-static.json")
