from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tune.small import Quiet, evaluator, train_with_a_cut, training
from tokensearch.data.training import TrainingImages
from tokensearch.errors import PolicyError
from tokensearch.policy import Policy, Prune, mac_share
from tokensearch.runtime import describe, policy_of
from tokensearch.tune.budget import LatencyBudget, MacBudget, make_twin
from tokensearch.tune.learned_thresholds import ThresholdsResult, find_thresholds
from tokensearch.tune.loop import TrainingSettings
from tokensearch.tune.thresholds import TOLERANCE, check_reach

SETTINGS = TrainingSettings(steps=12, batch=16, lr=0.05)
SPEC = describe(evaluator().model)


def find(
    folder: Path,
    *,
    settings: TrainingSettings = SETTINGS,
    own: TrainingImages | None = None,
    budget: Any = None,
) -> ThresholdsResult:
    subject = evaluator()
    return find_thresholds(
        subject,
        sites=(0, 2),
        budget=budget or MacBudget(SPEC, 0.6),
        score="class_attention",
        watcher=Quiet(),
        training=training(folder, subject, settings, own=own),
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> ThresholdsResult:
    return find(tmp_path_factory.mktemp("thresholds"))


def test_thresholds_that_learn_end_on_the_budget(result: ThresholdsResult) -> None:
    assert result.learned is not None
    assert abs(result.learned.mac_share / 0.6 - 1) <= TOLERANCE
    assert abs(result.calibrated.mac_share / 0.6 - 1) <= TOLERANCE
    assert set(result.select) == {"thresholds", "static"}


def test_the_better_of_calibrated_and_learned_thresholds_is_kept(
    result: ThresholdsResult,
) -> None:
    assert result.search is not None
    assert result.search.after.kl != result.search.before.kl  # something was learned
    kept = result.calibrated is result.learned
    assert kept == (result.search.after.kl < result.search.before.kl)


@pytest.mark.long
def test_a_training_of_thresholds_that_is_cut_off_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, again = train_with_a_cut(find, tmp_path, monkeypatch)

    assert again.learned is not None
    assert whole.learned is not None
    assert again.learned.policy == whole.learned.policy


def test_the_weights_and_the_model_stay_as_they_were(tmp_path: Path) -> None:
    subject = evaluator()
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}

    find_thresholds(
        subject,
        sites=(1,),
        budget=MacBudget(SPEC, 0.7),
        score="class_attention",
        watcher=Quiet(),
        training=training(tmp_path, subject, replace(SETTINGS, steps=2)),
    )

    assert policy_of(subject.model) is None
    for name, value in subject.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_thresholds_learn_in_half_precision(tmp_path: Path) -> None:
    result = find(tmp_path, settings=replace(SETTINGS, steps=2, precision="bf16"))

    assert result.learned is not None
    assert abs(result.learned.mac_share / 0.6 - 1) <= TOLERANCE


def counts(*kept: int) -> Tensor:
    """(1, 4) tokens behind four blocks, with sites at blocks 0 and 2."""
    first, second = kept
    return torch.tensor([[first, first, second, second]], dtype=torch.float64)


class Table:
    """Predicts a hundredth of a millisecond per thousand multiply-accumulates."""

    def predict(self, policy: Policy) -> float:
        return 10 * mac_share(policy)


def latency(limit_ms: float) -> LatencyBudget:
    table: Any = Table()
    return LatencyBudget(table, make_twin(SPEC, (0, 2), "class_attention"), limit_ms)


def test_a_budget_in_milliseconds_is_what_the_table_predicts_of_equal_counts() -> None:
    twin = Policy(SPEC, tuple(Prune(b, k, at="block_end") for b, k in ((0, 9), (2, 4))))

    cost = latency(5.0).cost(counts(9, 4))

    assert cost.item() == pytest.approx(10 * mac_share(twin), rel=1e-12)


def test_a_budget_in_milliseconds_has_a_derivative_by_counts() -> None:
    means = counts(9, 4).requires_grad_()

    (slope,) = torch.autograd.grad(latency(5.0).cost(means), means)

    apart = latency(5.0).cost(counts(13, 4)) - latency(5.0).cost(counts(5, 4))
    assert slope[0, 0].item() == pytest.approx(apart.item() / 8, rel=1e-9)
    assert slope[0, 1] == 0


def test_thresholds_meet_a_budget_in_milliseconds(tmp_path: Path) -> None:
    result = find(tmp_path, budget=latency(6.0))

    assert abs(result.calibrated.cost / 6.0 - 1) <= TOLERANCE


def test_a_time_out_of_reach_is_refused_before_anything_runs() -> None:
    with pytest.raises(PolicyError, match=r"a budget of 0\.1 ms as predicted of equal counts is"):
        check_reach(SPEC, (0, 2), latency(0.1))


def test_calibrated_thresholds_are_kept_where_learned_ones_cannot_be_moved_to_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PolicyError("too far off")

    monkeypatch.setattr("tokensearch.tune.learned_thresholds.move_to_budget", refuse)

    result = find(tmp_path, settings=replace(SETTINGS, steps=1))

    assert result.learned is None
    assert abs(result.calibrated.mac_share / 0.6 - 1) <= TOLERANCE
