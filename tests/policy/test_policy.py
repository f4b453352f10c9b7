from dataclasses import replace
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokensearch.errors import PolicyError
from tokensearch.policy import ModelSpec, Policy, Pool, Prune, Step
from tokensearch.policy.checks import kept_range
from tokensearch.policy.steps import SCORES, Match, PruneOrPool, Rest

SPEC = ModelSpec("toy", blocks=4, patch_tokens=16, prefix_tokens=1, width=8)


# Every kind of step that a block may hold, and each of their choices; a grid fits few counts.
KINDS: list[tuple[Step, ...]] = [
    (),
    *((Prune(0, 1, score),) for score in SCORES),
    *((Prune(0, 1, rest=rest),) for rest in get_args(Rest)),
    *((Pool(0, 1, match),) for match in get_args(Match) if match != "grid"),
    (Pool(0, 1, "ranked", "random"),),
    (Pool(0, 1, "energy", margin=0.5),),
    (Prune(0, 1, "shift", at="block_end"),),
    (PruneOrPool(0, 1, threshold=7e-5),),
    (Prune(0, 1), Pool(0, 1, "ranked")),
]


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    steps: list[Step] = []
    left = SPEC.patch_tokens
    for block in range(SPEC.blocks):
        for step in draw(st.sampled_from(KINDS)):
            least, most = kept_range(replace(step, keep=left), left)
            left = draw(st.integers(least, most))
            steps.append(replace(step, block=block, keep=left))
    last = draw(st.sampled_from(["full", "prefix_only"]))
    return Policy(SPEC, tuple(steps), proportional_attention=draw(st.booleans()), last_block=last)


def test_blocks_without_a_step_keep_what_is_left() -> None:
    policy = Policy(SPEC, (Prune(1, 12), Pool(2, 7)))

    assert policy.patch_tokens_per_block == (16, 12, 7, 7)


def test_a_last_block_for_prefix_tokens_alone_leaves_no_patch_token() -> None:
    policy = Policy(SPEC, (Prune(1, 12), Prune(3, 6)), last_block="prefix_only")

    assert policy.patch_tokens_per_block == (16, 12, 12, 0)
    assert policy.steps == (Prune(1, 12),)


def test_steps_that_change_nothing_are_left_out() -> None:
    assert Policy(SPEC, (Prune(1, 16), Pool(2, 16))) == Policy(SPEC)


def test_equal_schedules_have_equal_hashes_whatever_their_evidence() -> None:
    one = Policy(SPEC, (Prune(1, 12),), provenance={"trial": 1})
    other = Policy(
        ModelSpec("fine-tuned", 4, 16, 1, 8),
        (Pool(0, 16), Prune(1, 12)),
        proportional_attention=True,
    )

    assert one.schedule_hash == other.schedule_hash


def test_different_schedules_have_different_hashes() -> None:
    schedules = [
        Policy(SPEC),
        Policy(SPEC, last_block="prefix_only"),
        Policy(SPEC, (Prune(1, 12),)),
        Policy(SPEC, (Prune(1, 12, "random"),)),
        Policy(SPEC, (Pool(1, 12),)),
        Policy(SPEC, (Pool(1, 12),), proportional_attention=True),
    ]

    assert len({policy.schedule_hash for policy in schedules}) == len(schedules)


@given(policies())
def test_token_counts_never_grow(policy: Policy) -> None:
    counts = (SPEC.patch_tokens, *policy.patch_tokens_per_block)

    assert all(before >= after for before, after in pairwise(counts))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            (Prune(1, 17),),
            "prune at block 1 keeps 17 of the 16 patch tokens left; "
            "it may keep an integer from 1 to 16",
        ),
        (
            (Prune(1, 0),),
            "prune at block 1 keeps 0 of the 16 patch tokens left; "
            "it may keep an integer from 1 to 16",
        ),
        (
            (Pool(1, 7),),
            "pool at block 1 keeps 7 of the 16 patch tokens left; "
            "it may keep an integer from 8 to 16",
        ),
        (
            (Prune(1, 9), Pool(2, 4)),
            "pool at block 2 keeps 4 of the 9 patch tokens left; "
            "it may keep an integer from 5 to 9",
        ),
        ((Prune(4, 9),), "step at block 4: toy has blocks 0 to 3"),
        (
            (Prune(2, 9), Prune(1, 5)),
            "step at block 1 follows one at block 2; steps must be in order of block",
        ),
        (
            (Pool(1, 9), Prune(1, 5)),
            "block 1 has pool, then prune; a block may hold one prune, then one pool",
        ),
        (
            (Prune(1, 9, "beauty"),),
            "prune at block 1 scores by 'beauty'; known are class_attention, "
            "class_attention_value, head_weighted_class_attention, mean_attention, shift, "
            "random, learned",
        ),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(steps: tuple[Step, ...], message: str) -> None:
    with pytest.raises(PolicyError) as raised:
        Policy(SPEC, steps)

    assert str(raised.value) == message


def test_a_model_without_prefix_tokens_cannot_keep_them_alone() -> None:
    with pytest.raises(PolicyError, match="no prefix tokens to keep"):
        Policy(ModelSpec("pooled", 4, 16, 0, 8), last_block="prefix_only")
