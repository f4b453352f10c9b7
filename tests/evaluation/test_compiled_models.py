from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import tokensearch
from tests.runtime.compilers import Counting
from tests.search.tiny import model, splits
from tests.short import short_profiles
from tokensearch.evaluation import latency
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.evaluation.latency import CompiledModels
from tokensearch.measure import TimingBudget, describe_cell
from tokensearch.policy import Policy, Pool, Prune
from tokensearch.records.run_folder import RunFolder
from tokensearch.runtime import describe, with_backend

CELL = describe_cell(torch.device("cpu"), torch.float32, 2, 32, backend="compile")
BUDGET = TimingBudget(warmup=1, max_rounds=12, seconds=1.0, precision=0.5)
SPEC = describe(model())


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    counting = Counting()
    monkeypatch.setattr(latency, "prepare_backend", partial(with_backend, compiler=counting))
    yield counting
    torch.compiler.reset()


@pytest.mark.long
def test_the_unreduced_model_is_compiled_once_and_each_candidate_for_itself(
    compiler: Counting,
) -> None:
    evaluator = PolicyEvaluator(model(), splits(), CELL, seed=0)

    for keep in (12, 8):
        found = evaluator.time(Policy(SPEC, (Prune(1, keep), Pool(2, 6))), BUDGET)
        assert len(found.candidate.passes_ms) == 12

    assert compiler.graphs == 3


@pytest.mark.long
def test_timed_together_each_is_compiled_once_and_the_unreduced_model_too(
    compiler: Counting,
) -> None:
    timing, heard = PolicyEvaluator(model(), splits(), CELL, seed=0).timing, list[int]()
    policies = [Policy(SPEC), *(Policy(SPEC, (Prune(1, keep), Pool(2, 6))) for keep in (12, 8))]

    found = timing.time_together(
        policies,
        TimingBudget(warmup=1, max_rounds=12, seconds=1.0),
        tell=lambda rounds, _: heard.append(rounds),
    )

    assert compiler.graphs == 4
    assert [len(one.candidate.passes_ms) for one in found] == [12, 12, 12]
    assert {one.baseline for one in found} == {found[0].baseline}
    assert heard[-1] == 12
    assert all(one.conditions is not None for one in found)


@pytest.mark.slow
def test_what_was_compiled_is_forgotten_now_and_then(
    compiler: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "RESET_AFTER", 2)
    made, candidate, images = CompiledModels(model(), "compile"), model(), torch.randn(2, 3, 32, 32)

    with torch.inference_mode():
        for keep in (12, 10, 8):
            with tokensearch.applied(candidate, Policy(SPEC, (Prune(1, keep),))) as followed:
                baseline, run = made.pair(followed, images)
                assert torch.equal(baseline(), made.model(images))
                assert torch.equal(run(), followed(images))

    assert compiler.graphs == 5  # the baseline again, before the third


def test_an_eager_pair_is_the_models_themselves() -> None:
    baseline, candidate, images = model(), model(), torch.randn(2, 3, 32, 32)

    first, second = CompiledModels(baseline, "eager").pair(candidate, images)

    assert (first.func, second.func) == (baseline, candidate)


def test_a_profile_says_that_its_passes_are_eager(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create()

    evaluator = PolicyEvaluator(model(), splits(), CELL, seed=0)
    with short_profiles():
        (found,) = evaluator.profile({"baseline": Policy(SPEC)}, folder)

    assert found.cell == replace(CELL, backend="eager")


def test_a_gpu_meets_the_token_counts_of_a_candidate_before_it_is_timed() -> None:
    met: list[torch.Tensor] = []
    elsewhere, here = torch.empty(2, 3, device="meta"), torch.empty(2, 3)

    CompiledModels(model(), "eager").pair(met.append, elsewhere)  # type: ignore[arg-type]
    CompiledModels(model(), "eager").pair(met.append, here)  # type: ignore[arg-type]

    assert len(met) == 1
    assert met[0] is elsewhere
