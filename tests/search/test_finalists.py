from dataclasses import replace
from typing import Any

import pytest

from tokensearch.policy import ModelSpec, Policy, Prune, parse_target
from tokensearch.policy.file import policy_to_json
from tokensearch.records.measurements import Accuracy, Comparison, Latency, Trial
from tokensearch.search.finalists.finalist import (
    ConfirmedPolicy,
    best_preset,
    meets_target,
    on_front,
    select_answer,
)

SPEC = ModelSpec("toy", blocks=4, patch_tokens=16, prefix_tokens=1, width=8)
HALF = parse_target("0.5x")


def accuracy(right: int, kl: float = 0.0) -> Accuracy:
    return Accuracy("top1", "select", "sha256:0", 100, right, 0.0, 1.0, 0.95, kl, kl, right)


def timing(ratio: float, reach: float = 0.01) -> Comparison:
    baseline, candidate = Latency((10.0,), 1), Latency((10.0 * ratio,), 1)
    return Comparison(baseline, candidate, ratio, ratio - reach, ratio + reach, 0.95, "faster")


def trial(keep: int, ratio: float | None, right: int, origin: str = "sampler") -> Trial:
    policy = Policy(SPEC, (Prune(1, keep),))
    found = None if ratio is None else timing(ratio)
    state = "raced" if ratio is None else "complete"
    return Trial(
        number=keep,
        origin=origin,
        schedule_hash=policy.schedule_hash,
        state=state,
        predicted=1.0 if ratio is None else ratio,
        comparison=found,
        accuracy=accuracy(right),
        seconds=1.0,
        policy=policy_to_json(policy),
    )


def finalist(keep: int, ratio: float, right: int, **more: Any) -> ConfirmedPolicy:
    """A finalist that keeps `keep` of 16 tokens; 16 is the baseline."""
    one = trial(keep, ratio, right, more.get("origin", "sampler"))
    found = timing(ratio, more.get("reach", 0.01))
    select = accuracy(right, more.get("kl", 0.0))
    return ConfirmedPolicy(
        one, Policy(SPEC, (Prune(1, keep),)), found, select, more.get("by", "top1")
    )


BASELINE = finalist(16, 1.02, 98, origin="none")


def test_the_most_accurate_that_surely_meets_the_target_is_the_answer() -> None:
    fast, good, slow = finalist(4, 0.3, 90), finalist(8, 0.45, 96), finalist(12, 0.7, 97)

    assert select_answer([BASELINE, fast, good, slow], HALF, batch=8) == (good, "met")


def test_a_better_one_that_may_miss_the_target_is_not_the_answer() -> None:
    sure, doubtful = finalist(4, 0.48, 90), finalist(8, 0.495, 96)

    assert select_answer([BASELINE, sure, doubtful], HALF, batch=8) == (sure, "met")


def test_if_all_are_in_doubt_so_is_the_answer() -> None:
    doubtful = finalist(8, 0.505, 96)

    assert select_answer([BASELINE, doubtful], HALF, batch=8) == (doubtful, "ambiguous")


def test_if_none_is_fast_enough_there_is_no_answer() -> None:
    assert select_answer([BASELINE, finalist(8, 0.6, 96)], HALF, batch=8) == (None, "missed")


def test_an_unreduced_model_that_is_fast_enough_is_the_answer_whatever_else_there_is() -> None:
    lucky = finalist(8, 0.6, 99)

    assert select_answer([lucky, BASELINE], parse_target("20ms"), batch=8) == (
        BASELINE,
        "unreduced",
    )


def test_of_equally_accurate_ones_what_diverges_less_wins() -> None:
    near, far = finalist(7, 0.45, 96, kl=0.1), finalist(4, 0.3, 96, kl=0.5)

    assert select_answer([BASELINE, near, far], HALF, batch=8).policy is near
    assert on_front([far, near, BASELINE], near) == (far, near, BASELINE)


def test_no_divergence_outweighs_a_right_answer() -> None:
    better, nearer = finalist(7, 0.45, 97, kl=9.0), finalist(6, 0.44, 96, kl=0.0)

    assert select_answer([BASELINE, better, nearer], HALF, batch=8).policy is better


@pytest.mark.parametrize(
    ("target", "expected"),
    [("5.5ms", "met"), ("4.0ms", "ambiguous"), ("2.9ms", "missed"), ("2000/s", "ambiguous")],
)
def test_a_time_is_held_against_the_spread_of_the_candidates_own_passes(
    target: str, expected: str
) -> None:
    passes = Latency(tuple(3.0 + 0.1 * n for n in range(21)), warmup=1)  # median 4.0
    one = finalist(4, 0.4, 90)
    spread = replace(one, comparison=replace(one.comparison, candidate=passes))

    assert meets_target(spread, parse_target(target), batch=8) == expected


def test_the_front_holds_what_nothing_dominates_and_the_unreduced_model() -> None:
    fast, good, dominated = finalist(4, 0.3, 90), finalist(8, 0.45, 99), finalist(7, 0.5, 95)

    assert on_front([fast, good, dominated, BASELINE], None) == (fast, good, BASELINE)


def test_an_answer_that_a_doubtful_one_dominates_stays_on_the_front() -> None:
    doubtful, sure = finalist(8, 0.46, 97, reach=0.1), finalist(7, 0.47, 96)

    best = select_answer([doubtful, sure, BASELINE], HALF, batch=8).policy

    assert on_front([doubtful, sure, BASELINE], best) == (doubtful, sure, BASELINE)


def test_the_best_preset_is_a_published_one_that_meets_the_target() -> None:
    mine, theirs = finalist(8, 0.45, 99), finalist(7, 0.44, 95, origin="tome-r13")
    slow = finalist(12, 0.8, 97, origin="tome-r8")

    assert best_preset([BASELINE, mine, theirs, slow], HALF, batch=8) is theirs
