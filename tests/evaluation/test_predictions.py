"""Answers of earlier processes: found for the same model, and for no other."""

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
from tokensearch.accuracy.store import AnswerStore
from tokensearch.errors import TokensearchWarning
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.evaluation.predictions import PROBES, STALE
from tokensearch.policy import Policy, Pool, Prune
from tokensearch.runtime import describe


def evaluator(store: AnswerStore, model: nn.Module | None = None) -> PolicyEvaluator:
    return PolicyEvaluator(model or tiny.model(), tiny.splits(), CELL, 0, store)


def policies() -> tuple[Policy, ...]:
    spec = describe(tiny.model())
    return Policy(spec), Policy(spec, (Prune(2, 5),)), Policy(spec, (Pool(3, 9),))


def asked(one: PolicyEvaluator) -> list[ImageResults]:
    return [one.answering.answers(policy, "report") for policy in policies()]


def equal(some: list[ImageResults], others: list[ImageResults]) -> bool:
    pairs = zip(some, others, strict=True)
    return all(torch.equal(a.answers, b.answers) and torch.equal(a.ce, b.ce) for a, b in pairs)


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
def test_another_model_of_the_same_weights_gets_no_answers_of_the_first(
    tmp_path: Path, change: Callable[[Any], None]
) -> None:
    store, other = AnswerStore(tmp_path / "answers.db"), tiny.model()
    first = asked(evaluator(store))
    change(other)

    found = asked(evaluator(store, other))

    assert equal(found, asked(evaluator(AnswerStore(None), other)))
    assert not equal(found, first)


def test_the_same_model_is_asked_about_a_few_images_alone(tmp_path: Path) -> None:
    store, later = AnswerStore(tmp_path / "answers.db"), AnswerStore(tmp_path / "answers.db")
    first, passes = asked(evaluator(store)), []
    one = evaluator(later)
    one.timing.candidate.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))

    assert equal(asked(one), first)
    assert passes == [PROBES] * 3
    assert one.answering.images_run == 0


def test_answers_that_a_fresh_pass_does_not_give_are_forgotten_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AnswerStore(tmp_path / "answers.db")
    one, other = evaluator(store), evaluator(store, tiny.model())
    asked(one)
    relu(other.model)
    other.answering.model = one.answering.model  # as if the key had missed what was changed

    with pytest.warns(TokensearchWarning, match="remembered answers were not those of the model"):
        found = asked(other)

    assert equal(found, asked(evaluator(AnswerStore(None), other.model)))
    again = evaluator(store, other.model)
    again.answering.model = one.answering.model
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is kept now holds
        assert equal(asked(again), found)
    assert STALE.endswith("everything is asked again")


@pytest.mark.parametrize("answer", [-1, 10**6])
def test_an_answer_that_no_class_has_is_forgotten(tmp_path: Path, answer: int) -> None:
    store = AnswerStore(tmp_path / "answers.db")
    first = asked(evaluator(store))
    one = evaluator(store)
    for policy in policies():
        key = one.answering._key(policy.schedule_hash)
        names = one.answering._names("report", 0)
        kept = store.get(key, names)
        assert kept is not None
        store.put(key, names, replace(kept, answers=torch.full_like(kept.answers, answer)))

    with pytest.warns(TokensearchWarning, match="remembered answers were not those of the model"):
        assert equal(asked(one), first)
