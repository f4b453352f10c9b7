"""Predictions of earlier processes: reused for the same model, and for no other."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.cells import CELL
from tests.search import tiny
from tokensearch.accuracy.results import ImageResults
from tokensearch.accuracy.store import PredictionStore
from tokensearch.errors import TokensearchWarning
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.evaluation.predictions import PROBES, STALE
from tokensearch.policy import Policy, Pool, Prune
from tokensearch.runtime import describe


def evaluator(store: PredictionStore, model: nn.Module | None = None) -> PolicyEvaluator:
    return PolicyEvaluator(model or tiny.model(), tiny.splits(), CELL, 0, store)


def policies() -> tuple[Policy, ...]:
    spec = describe(tiny.model())
    return Policy(spec), Policy(spec, (Prune(2, 5),)), Policy(spec, (Pool(3, 9),))


def predict(evaluator: PolicyEvaluator) -> list[ImageResults]:
    return [evaluator.predictions.results(policy, "report") for policy in policies()]


def have_equal_results(some: list[ImageResults], others: list[ImageResults]) -> bool:
    pairs = zip(some, others, strict=True)
    return all(torch.equal(a.predicted, b.predicted) and torch.equal(a.ce, b.ce) for a, b in pairs)


def heads(model: Any) -> None:
    """More heads of the same weights."""
    for block in model.blocks:
        block.attn.num_heads, block.attn.head_dim, block.attn.scale = 12, 2, 2**-0.5


def relu(model: Any) -> None:
    for block in model.blocks:
        block.mlp.act = nn.ReLU()


def mean(model: Any) -> None:
    """Another head with the same weights."""

    def forward_head(x: Tensor, **_: Any) -> Tensor:
        return model.head(model.norm(x).mean(dim=1))

    model.forward_head = forward_head


@pytest.mark.parametrize("change", [heads, relu, mean])
def test_another_model_of_the_same_weights_gets_no_predictions_of_the_first(
    tmp_path: Path, change: Callable[[Any], None]
) -> None:
    store, other = PredictionStore(tmp_path / "answers.db"), tiny.model()
    first = predict(evaluator(store))
    change(other)

    found = predict(evaluator(store, other))

    assert have_equal_results(found, predict(evaluator(PredictionStore(None), other)))
    assert not have_equal_results(found, first)


def test_the_same_model_predicts_only_a_few_images_again(tmp_path: Path) -> None:
    store, later = (
        PredictionStore(tmp_path / "answers.db"),
        PredictionStore(tmp_path / "answers.db"),
    )
    first, passes = predict(evaluator(store)), []
    one = evaluator(later)
    one.timing.candidate.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))

    assert have_equal_results(predict(one), first)
    assert passes == [PROBES] * 3
    assert one.predictions.images_run == 0


def test_predictions_that_a_fresh_pass_contradicts_are_deleted_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PredictionStore(tmp_path / "answers.db")
    one, other = evaluator(store), evaluator(store, tiny.model())
    predict(one)
    relu(other.model)
    other.predictions.model = one.predictions.model  # as if the key had missed what was changed

    with pytest.warns(TokensearchWarning, match="stored predictions differ from the model"):
        found = predict(other)

    assert have_equal_results(found, predict(evaluator(PredictionStore(None), other.model)))
    again = evaluator(store, other.model)
    again.predictions.model = one.predictions.model
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is kept now holds
        assert have_equal_results(predict(again), found)
    assert STALE.endswith("all images are predicted again")


@pytest.mark.parametrize("index", [-1, 10**6])
def test_a_prediction_outside_the_classes_is_deleted(tmp_path: Path, index: int) -> None:
    store = PredictionStore(tmp_path / "answers.db")
    first = predict(evaluator(store))
    one = evaluator(store)
    for policy in policies():
        key = one.predictions._key(policy.schedule_hash)
        names = one.predictions._names("report", 0)
        kept = store.get(key, names)
        assert kept is not None
        store.put(key, names, replace(kept, predicted=torch.full_like(kept.predicted, index)))

    with pytest.warns(TokensearchWarning, match="stored predictions differ from the model"):
        assert have_equal_results(predict(one), first)
