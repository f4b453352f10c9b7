"""A score that the user's program gives."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tokensearch
from tests.search import tiny
from tokensearch.errors import PolicyError
from tokensearch.ops import scores
from tokensearch.policy import Policy, Pool, Prune, Threshold
from tokensearch.runtime import describe


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    scores._OWN.clear()


def by_place(patches: Tensor, keys: Tensor) -> Tensor:
    """The later, the better."""
    assert keys.shape[2] == patches.shape[1]
    return torch.arange(patches.shape[1]).expand(patches.shape[:2]).to(patches.dtype)


def pruned(score: str) -> Policy:
    return Policy(describe(tiny.model()), (Prune(1, 4, score=score),))


def test_the_best_by_the_function_survive() -> None:
    model = tiny.model()
    tokensearch.add_score("place", by_place)

    tokensearch.apply(model, pruned("own:place"))
    held = tokensearch.trace(model, torch.randn(2, 3, 32, 32))[-1]

    assert (held[:, -4:] >= 0).all()
    assert (held[:, :-4] == -1).all()


def test_the_lowest_by_the_function_are_merged() -> None:
    model = tiny.model()
    tokensearch.add_score("place", by_place)
    step = Pool(1, 12, match="ranked", score="own:place")

    tokensearch.apply(model, Policy(describe(model), (step,)))
    held = tokensearch.trace(model, torch.randn(2, 3, 32, 32))[-1]

    assert all(len(set(image[-12:].tolist())) == 12 for image in held)


def test_it_is_written_and_read_by_name_alone(tmp_path: Path) -> None:
    tokensearch.save(pruned("own:place"), tmp_path / "policy.json")

    assert '"own:place"' in (tmp_path / "policy.json").read_text()
    assert tokensearch.load(tmp_path / "policy.json") == pruned("own:place")


def test_a_program_without_the_function_is_told_what_to_call() -> None:
    with pytest.raises(PolicyError, match=r"call tokensearch.add_score\('place', FUNCTION\) first"):
        tokensearch.apply(tiny.model(), pruned("own:place"))


def test_numbers_of_another_shape_are_refused() -> None:
    model = tiny.model()
    tokensearch.add_score("place", lambda patches, keys: patches)
    tokensearch.apply(model, pruned("own:place"))

    with pytest.raises(PolicyError, match="a number for each image and patch token"):
        model(torch.randn(2, 3, 32, 32))


def test_a_name_is_of_one_function() -> None:
    tokensearch.add_score("place", by_place)
    tokensearch.add_score("place", by_place)

    with pytest.raises(PolicyError, match="'place' is there already"):
        tokensearch.add_score("place", lambda patches, keys: patches[..., 0])


def test_a_function_that_is_gone_when_the_model_runs_is_asked_for() -> None:
    model = tiny.model()
    tokensearch.add_score("place", by_place)
    tokensearch.apply(model, pruned("own:place"))
    scores._OWN.clear()  # as in a process that unpickles the model

    with pytest.raises(PolicyError, match=r"call tokensearch.add_score\('place', FUNCTION\) first"):
        model(torch.randn(2, 3, 32, 32))


def test_what_orders_tokens_is_no_weight_of_a_fused_one() -> None:
    with pytest.raises(PolicyError, match="can be dropped or averaged"):
        Policy(describe(tiny.model()), (Prune(1, 4, score="own:place", rest="fuse"),))


@pytest.mark.parametrize("name", ["", "a b", "A", "x" * 41, "own:place"])
def test_names_that_no_file_could_hold_are_refused(name: str) -> None:
    with pytest.raises(PolicyError, match="small letters"):
        tokensearch.add_score(name, by_place)
    with pytest.raises(PolicyError, match="scores by"):
        pruned(f"own:{name}")


def test_thresholds_are_of_known_scores_alone() -> None:
    step = Threshold(1, 4, 0.1, score="own:place")  # type: ignore[arg-type]

    with pytest.raises(PolicyError, match="scores by"):
        Policy(describe(tiny.model()), (step,), counts="per_image")


@pytest.mark.long
def test_it_compiles_as_a_whole() -> None:
    from tokensearch.runtime import with_backend

    model, images = tiny.model(), torch.randn(2, 3, 32, 32)
    tokensearch.add_score("place", by_place)
    tokensearch.apply(model, pruned("own:place"))
    expected = model(images)

    run = with_backend(model, "compile", images, compiler="aot_eager")

    torch.testing.assert_close(run(images), expected)
