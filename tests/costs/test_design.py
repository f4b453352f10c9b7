from collections import Counter

import pytest

from tests.costs.machine import SPEC, design
from tokensearch.costs.design import OPERATORS
from tokensearch.costs.parts import operator, parts_of
from tokensearch.policy import Policy, Pool, Prune


def test_no_count_is_dealt_twice_before_every_other_was_dealt() -> None:
    drawn = design()
    counts: list[int] = []
    while len(counts) < SPEC.patch_tokens:
        counts += [keep for _, keep in drawn._hand(SPEC.blocks)]

    dealt = Counter(counts)
    assert len(dealt) >= SPEC.patch_tokens - SPEC.blocks  # the last hand may be of the next deck
    assert max(dealt.values()) <= 2


def test_every_operator_is_met_but_those_left_out() -> None:
    wanted = tuple(name for name in OPERATORS if name != "pool grid")
    drawn = design(operators=wanted)

    met = {operator(step) for _ in range(200) for step in drawn.reducing().steps}

    assert met == set(wanted)


def test_the_same_seed_draws_the_same_schedules() -> None:
    one, other = design(seed=7), design(seed=7)

    assert [one.reducing() for _ in range(5)] == [other.reducing() for _ in range(5)]


def test_attention_is_sized_from_the_block_after_the_first_merge() -> None:
    policy = Policy(SPEC, (Prune(1, 40), Pool(2, 30)), proportional_attention=True)

    names = [part.name for part in parts_of(policy) if part.half == "attention"]

    assert names == ["attention"] * 3 + ["sized attention"] * 3


@pytest.mark.parametrize(
    ("score", "priced"),
    [("class_attention", 1), ("mean_attention", 2)],
)
def test_a_score_that_two_steps_of_a_block_share_is_paid_once(score: str, priced: int) -> None:
    steps = (Prune(1, 40, "class_attention"), Pool(1, 30, "ranked", score))  # type: ignore[arg-type]

    names = [part.name for part in parts_of(Policy(SPEC, steps))]

    assert sum(name.startswith("score ") for name in names) == priced


def test_a_pass_that_cuts_tokens_off_pays_for_no_step() -> None:
    policy = Policy(SPEC, (Prune(1, 40),))

    floor = list(parts_of(policy, floor=True))

    assert [part.n_in for part in floor if part.name == "mlp"] == [48, 40, 40, 40, 40, 40]
    assert {part.half for part in floor if part.block is not None} == {"attention", "mlp"}
