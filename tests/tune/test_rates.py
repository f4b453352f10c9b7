import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from tests.runtime.test_apply import vit
from tests.tune.small import Quiet, evaluator, model, train_with_a_cut, training
from tokensearch.cli.main import app
from tokensearch.data.training import TrainingImages
from tokensearch.errors import PolicyError
from tokensearch.policy import Policy, load, mac_share
from tokensearch.runtime import applied, apply, describe, learning_masks
from tokensearch.tune.budget import LatencyBudget, MacBudget, make_twin
from tokensearch.tune.loop import TrainingSettings
from tokensearch.tune.rates import (
    LearningRates,
    RatesResult,
    _scaffold,
    keep_equal_shares,
    make_policy,
    scale_rates,
    tune_rates,
)

SPEC = describe(model())
BUDGET = MacBudget(SPEC, 0.6, at="between")
SETTINGS = TrainingSettings(steps=12, batch=16, lr=0.1)


def tune(folder: Path, *, own: TrainingImages | None = None) -> RatesResult:
    subject = evaluator()
    asked = training(folder, subject, SETTINGS, own=own)
    return tune_rates(subject, "class_attention", BUDGET, asked, watcher=Quiet())


def learning(own: nn.Module, counts: list[float], budget: MacBudget = BUDGET) -> LearningRates:
    spec = describe(own)
    learner = LearningRates(apply(own, _scaffold(spec, "class_attention")), spec, counts, budget)
    return learner.to(next(own.parameters()).dtype)


def test_counts_that_learn_keep_to_the_budget_and_the_better_ones_are_kept(tmp_path: Path) -> None:
    result = tune(tmp_path)

    assert 0.5 < mac_share(result.search.policy) <= 0.6
    assert result.better == (result.search.after.kl < result.search.before.kl)
    assert result.better == (result.policy == result.search.policy)


def test_masks_by_rank_compute_what_the_policy_computes_that_drops() -> None:
    own = vit().double()
    pixels = torch.randn(5, 3, 32, 32, dtype=torch.float64)
    learner = learning(own, [16, 11, 6, 9])

    with torch.no_grad(), learning_masks(own, learner):
        masked = learner(pixels)
    policy = make_policy(
        describe(own), [round(count) for count in learner.kept()], "class_attention"
    )
    with torch.no_grad(), applied(own, policy):
        dropped = own(pixels)

    assert len(policy.steps) >= 2
    torch.testing.assert_close(masked, dropped, rtol=0, atol=1e-10)


def move_counts(learner: LearningRates, loss: Tensor) -> list[float]:
    """By how much a step against the gradient moves each expected count."""
    gradients = torch.autograd.grad(loss, list(learner.logits), materialize_grads=True)
    before = learner.expected().detach()
    with torch.no_grad():
        for logits, gradient in zip(learner.logits, gradients, strict=True):
            logits -= 1e-3 * gradient
    moved: list[float] = (learner.expected().detach() - before).tolist()
    return moved


def test_too_dear_counts_go_down_though_others_before_them_are_lower() -> None:
    learner = learning(vit().double(), [16, 8, 12, 12])

    cost, penalty = learner.price()

    assert cost > learner.budget.limit / learner.budget.whole
    assert all(moved < 0 for moved in move_counts(learner, penalty))


def test_too_cheap_counts_go_up() -> None:
    learner = learning(vit().double(), [16, 4, 3, 2])

    cost, penalty = learner.price()

    assert cost < learner.budget.limit / learner.budget.whole
    assert all(moved > 0 for moved in move_counts(learner, penalty))


@pytest.mark.parametrize("block", [1, 2])
def test_counts_go_up_where_tokens_are_worth_something(block: int) -> None:
    own = vit().double()
    learner = learning(own, [16, 9, 6, 4])
    pixels = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    sizes: dict[int, Tensor] = {}
    mask = learner.mask

    def note(step: Any, *args: Any, **named: Any) -> Any:
        masked = mask(step, *args, **named)
        assert masked.size is not None
        sizes[step.block] = masked.size
        return masked

    learner.mask = note  # type: ignore[method-assign]
    with learning_masks(own, learner):
        learner(pixels)
    moved = move_counts(learner, -sizes[block].sum())

    assert moved[block - 1] > 0
    assert moved[block:] == [0.0] * (3 - block)  # what comes later changes nothing there


@pytest.mark.parametrize("limit", [0.5, 0.7, 0.9])
def test_moved_counts_meet_the_budget_and_make_a_policy(limit: float) -> None:
    budget = MacBudget(SPEC, limit, at="between")

    for kept in ([16.0, 14.0, 12.0, 3.0], [16.0, 2.0, 2.0, 1.0], [16.0, 16.0, 16.0, 16.0]):
        policy = make_policy(SPEC, scale_rates(SPEC, kept, budget), "class_attention")
        assert limit - 0.1 < mac_share(policy) <= limit


def test_a_budget_in_milliseconds_counts_too() -> None:
    class Table:
        def predict(self, policy: Policy) -> float:
            return 10 * mac_share(policy)

    table: Any = Table()
    twin = make_twin(SPEC, range(1, SPEC.blocks), "class_attention", "between")
    budget = LatencyBudget(table, twin, 6.0)

    policy = make_policy(SPEC, keep_equal_shares(SPEC, budget), "class_attention")

    assert 5 < 10 * mac_share(policy) <= 6


def test_a_training_of_counts_that_is_cut_off_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, again = train_with_a_cut(tune, tmp_path, monkeypatch)

    assert again.policy == whole.policy


@pytest.mark.parametrize("limit", [0.01, 1.0])
def test_a_budget_out_of_reach_is_refused_before_anything_runs(limit: float) -> None:
    with pytest.raises(PolicyError, match="is out of reach"):
        keep_equal_shares(SPEC, replace(BUDGET, limit=limit))


def test_the_command_writes_a_policy_and_one_out_of_reach_has_its_exit_code(
    tmp_path: Path,
) -> None:
    subject = ["--model", "tests.tune.small:model", "--images", "20,20,20", "--batch-size", "4"]
    data = ["--train-data", "digits", "--train-batch", "8", "--steps", "3", "--distill", "1"]
    out = tmp_path / "rates.json"
    words = ["tune", "rates", *subject, *data, "--out", str(out), "--json", "--budget"]

    done = CliRunner().invoke(app, [*words, "0.5x"])
    refused = CliRunner().invoke(app, [*words, "0.001x"])

    assert done.exit_code in {0, 4}, done.stderr
    assert mac_share(load(out)) == json.loads(done.stdout)["mac_share"] <= 0.5
    assert refused.exit_code == 3
    assert "is out of reach" in " ".join(refused.stderr.split())
