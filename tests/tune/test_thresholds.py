import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import tokensearch
from tests.runtime.test_apply import vit
from tokensearch.cli.main import app
from tokensearch.cli.tune_output import compare_with_static
from tokensearch.errors import PolicyError
from tokensearch.evaluation.evaluator import spread_of_counts
from tokensearch.policy import Policy, Threshold, load, mac_share
from tokensearch.records.measurements import PairedAccuracy, to_json
from tokensearch.runtime import count_tokens, describe
from tokensearch.stats.interval import LEVEL, paired_difference
from tokensearch.stats.proportions import mcnemar
from tokensearch.tune import thresholds as tuning
from tokensearch.tune.budget import MacBudget, share_of_macs
from tokensearch.tune.thresholds import (
    TOLERANCE,
    CalibratedThresholds,
    _first_images,
    calibrate_thresholds,
    freeze,
    move_to_budget,
)

SCORE = "class_attention_value"


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(8, 3, 32, 32, generator=generator) for _ in range(12)]


def macs(share: float) -> MacBudget:
    return MacBudget(describe(vit()), share)


@pytest.mark.parametrize("budget", [0.4, 0.6, 0.8])
def test_thresholds_meet_the_budget_in_the_mean(budget: float) -> None:
    model, images = vit(), batches()

    calibrated = calibrate_thresholds(model, images, sites=(0, 2), budget=macs(budget), score=SCORE)

    assert abs(calibrated.mac_share / budget - 1) <= TOLERANCE
    assert calibrated.padded_mac_share > calibrated.mac_share
    tokensearch.apply(model, calibrated.policy)
    with torch.inference_mode():
        counts = torch.cat([count_tokens(model, batch) for batch in images])
    assert torch.equal(counts, calibrated.counts)
    assert len(set(counts[:, 0].tolist())) > 1
    means = counts.double().mean(dim=0)
    assert [step.keep for step in calibrated.policy.steps] == [
        round(float(means[0])),
        round(float(means[2])),
    ]


@pytest.mark.parametrize("off", [0.001, 1000.0])
def test_a_budget_is_met_however_far_off_the_first_thresholds_are(off: float) -> None:
    model, images = vit(), batches()
    policy = calibrate_thresholds(model, images, sites=(0, 2), budget=macs(0.6), score=SCORE).policy
    steps = tuple(replace(step, threshold=step.threshold * off) for step in policy.steps)

    moved = move_to_budget(model, images, replace(policy, steps=steps), macs(0.6))

    assert abs(moved.mac_share / 0.6 - 1) <= TOLERANCE


def test_the_nearest_of_all_that_was_measured_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    model, said = vit(), iter([0.7, 0.607, 0.7, *[0.5] * 30])

    def measure(_: object, __: object, policy: Policy, ___: object) -> CalibratedThresholds:
        cost = next(said)
        return CalibratedThresholds(policy, torch.zeros(1), cost, cost, 1.0)

    monkeypatch.setattr(tuning, "_measure", measure)
    policy = Policy(describe(model), (Threshold(0, 9, 0.1),), counts="per_image")

    assert move_to_budget(model, [], policy, macs(0.6)).mac_share == 0.607


def test_no_more_batches_are_joined_than_the_first_images_fill() -> None:
    class Counting(list[Tensor]):
        taken = 0

        def __getitem__(self, part: Any) -> Any:
            taken = super().__getitem__(part)
            self.taken = max(self.taken, len(taken))
            return taken

    many = Counting(batches() * 10)

    assert torch.equal(_first_images(many), torch.cat(batches())[:64])
    assert many.taken == 8


def test_the_model_is_left_without_a_policy() -> None:
    model = vit()

    calibrate_thresholds(model, batches(), sites=(1,), budget=macs(0.7), score=SCORE)

    assert tokensearch.runtime.policy_of(model) is None


def test_a_budget_out_of_reach_is_refused_before_the_first_pass() -> None:
    with pytest.raises(PolicyError, match="with one patch token left, blocks 2 leave"):
        calibrate_thresholds(vit(), [], sites=(2,), budget=macs(0.2), score=SCORE)


def test_work_is_counted_as_policies_count_it() -> None:
    spec = describe(vit())
    counts = torch.full((1, spec.blocks), spec.patch_tokens)
    fewer = Policy(spec, (tokensearch.policy.Prune(1, 5, at="block_end"),))

    assert share_of_macs(spec, counts).item() == 1
    counts[:, 1:] = 5
    assert share_of_macs(spec, counts).item() == pytest.approx(mac_share(fewer), rel=1e-12)


def test_counts_are_told_as_mean_median_and_tail() -> None:
    one = spread_of_counts(torch.tensor([[1], [2], [3], [10]]))[0]

    assert (one.block, one.mean, one.p50, one.max) == (0, 4.0, 2.5, 10)
    assert one.p90 == pytest.approx(7.9)


def paired(lost: int, won: int, *, images: int) -> PairedAccuracy:
    """Thresholds beside their static twin: wrong alone, right alone."""
    low, high = paired_difference(lost, won, images)
    difference = (won - lost) / images
    return PairedAccuracy(images, lost, won, mcnemar(lost, won), difference, low, high, LEVEL)


def tune(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["tune", "thresholds", *words])
    return done.exit_code, done.stdout, done.stderr


def test_the_verb_writes_thresholds_and_tells_what_they_keep(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    words = ("--images", "16,16,16", "--sites", "1,3", "--budget", "0.5x", "--out", str(path))

    code, out, err = tune(*words, "--json")

    assert code == 0, err
    document = json.loads(out)
    assert abs(document["mac_share"] / 0.5 - 1) <= TOLERANCE
    assert {"thresholds", "static"} == document["select"].keys()
    right = {name: accuracy["right"] for name, accuracy in document["select"].items()}
    lead = document["lead"]
    assert lead["only_candidate"] - lead["only_baseline"] == right["thresholds"] - right["static"]
    assert document["static_mac_share"] == mac_share(freeze(load(path)))
    policy = load(path)
    assert policy.counts == "per_image"
    assert [step.block for step in policy.steps] == [1, 3]


@pytest.mark.parametrize(
    ("lost", "won", "static", "verdict"),
    [
        (10, 9, 0.601, "better: static, which costs less; the accuracy differs by -0.4 points "),
        (10, 9, 0.76, "better: neither; the accuracy differs by -0.4 points "),
        (1, 20, 0.601, "better: thresholds; thresholds gain +7.4 points "),
        (20, 1, 0.601, "better: static; thresholds lose -7.4 points "),
    ],
)
def test_the_better_of_thresholds_and_static_counts_is_named(
    lost: int, won: int, static: float, verdict: str
) -> None:
    lead = paired(lost, won, images=256)
    document = {
        "padded_mac_share": 0.76,
        "static_mac_share": static,
        "batch": 8,
        "lead": to_json(lead),
        "select": {"static": {"kind": "top1"}},
    }

    said = compare_with_static(document)

    assert said.startswith(verdict)
    assert ("which is significant" in said) == lead.significant == (abs(won - lost) > 1)
    assert said.endswith(f"; 0.760x against {static:.3f}x in batches of 8")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--sites", "9", "--budget", "0.2x"), 3, "is out of reach"),
        (("--sites", "a", "--budget", "0.5x"), 2, "it must be blocks like 2,5,8"),
        (("--sites", "2", "--budget", "0.5x", "--out", "/dev/null/a"), 1, "cannot be written"),
        (("--sites", "2", "--budget", "5ms"), 2, "a time needs --costs FILE"),
    ],
)
def test_what_cannot_be_tuned_is_refused_in_one_sentence(
    words: tuple[str, ...], code: int, message: str
) -> None:
    got, _, err = tune("--images", "16,16,16", *words)

    assert got == code
    assert message in " ".join(err.split())
