from dataclasses import replace
from typing import Any

import pytest

from tokensearch.policy import Goal, ModelSpec, Outcome, Policy, Prune, RightImages, parse_target
from tokensearch.policy.answer import meets_goal
from tokensearch.policy.file import policy_to_json
from tokensearch.records.measurements import (
    Accuracy,
    Caution,
    Comparison,
    Latency,
    Trial,
)
from tokensearch.records.run_result import ChoiceFigures
from tokensearch.search.finalists.finalist import (
    ConfirmedPolicy,
    best_preset,
    on_front,
    select_answer,
)

SPEC = ModelSpec("toy", blocks=4, patch_tokens=16, prefix_tokens=1, width=8)
HALF = Goal(parse_target("0.5x"))


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
        accuracy=accuracy(right, (98 - right) / 100),
        seconds=1.0,
        policy=policy_to_json(policy),
    )


def choice(right: int, kl: float, kl_reach: float = 0.0) -> ChoiceFigures:
    """The first `right` of 100 images were right."""
    return ChoiceFigures(RightImages(100, (1 << right) - 1).hex, kl - kl_reach, kl + kl_reach)


def finalist(keep: int, ratio: float, right: int, **more: Any) -> ConfirmedPolicy:
    """A finalist that keeps `keep` of 16 tokens; 16 is the baseline."""
    kl = more.get("kl", (98 - right) / 100)  # so far apart that no two are alike
    return ConfirmedPolicy(
        trial(keep, ratio, right, more.get("origin", "sampler")),
        Policy(SPEC, (Prune(1, keep),)),
        timing(ratio, more.get("reach", 0.01)),
        accuracy(right, kl),
        choice(right, kl, more.get("kl_reach", 0.0)),
        more.get("by", "top1"),
    )


BASELINE = finalist(16, 1.02, 98, origin="none")


def answer(
    *finalists: ConfirmedPolicy, goal: Goal = HALF
) -> tuple[ConfirmedPolicy | None, Outcome]:
    return select_answer([BASELINE, *finalists], goal, batch=8)[:2]


def test_the_most_accurate_that_surely_meets_the_target_is_the_answer() -> None:
    fast, good, slow = finalist(4, 0.3, 90), finalist(8, 0.45, 96), finalist(12, 0.7, 97)

    assert answer(fast, good, slow) == (good, "met")


def test_a_better_one_that_may_miss_the_target_is_not_the_answer() -> None:
    sure, doubtful = finalist(4, 0.48, 90), finalist(8, 0.495, 96)

    assert answer(sure, doubtful) == (sure, "met")


def test_if_all_are_in_doubt_so_is_the_answer() -> None:
    doubtful = finalist(8, 0.505, 96)

    assert answer(doubtful) == (doubtful, "ambiguous")


def test_if_none_is_fast_enough_there_is_no_answer() -> None:
    assert answer(finalist(8, 0.6, 96)) == (None, "missed")


def test_an_unreduced_model_that_is_fast_enough_is_the_answer_whatever_else_there_is() -> None:
    assert answer(finalist(8, 0.6, 99), goal=Goal(parse_target("20ms"))) == (BASELINE, "unreduced")


def test_of_all_that_are_as_good_as_the_best_the_fastest_is_the_answer() -> None:
    best, alike = finalist(8, 0.45, 96, kl=0.0100), finalist(4, 0.3, 95, kl=0.0105)
    worse = finalist(2, 0.2, 95, kl=0.0115)

    chosen = select_answer([BASELINE, best, alike, worse], HALF, batch=8)

    assert chosen == (alike, "met", (alike, best), ())


def test_what_is_significantly_less_often_right_is_not_as_good() -> None:
    best, fewer = finalist(8, 0.45, 96, kl=0.01), finalist(4, 0.3, 88, kl=0.01)

    assert answer(best, fewer) == (best, "met")


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

    goal = Goal(parse_target(target))

    assert meets_goal(spread.figures(8), goal, None) == expected


def test_the_front_holds_what_nothing_dominates_and_the_unreduced_model() -> None:
    fast, good, dominated = finalist(4, 0.3, 90), finalist(8, 0.45, 99), finalist(7, 0.5, 95)

    assert on_front([fast, good, dominated, BASELINE]) == (fast, good, BASELINE)


def test_what_only_a_doubtful_one_dominates_stays_on_the_front() -> None:
    doubtful, sure = finalist(8, 0.46, 97, reach=0.1), finalist(7, 0.47, 96)

    assert on_front([doubtful, sure, BASELINE]) == (doubtful, sure, BASELINE)
    assert answer(doubtful, sure) == (sure, "met")


def test_the_best_preset_is_a_published_one_that_meets_the_target() -> None:
    mine, theirs = finalist(8, 0.45, 99), finalist(7, 0.44, 95, origin="tome-r13")
    slow = finalist(12, 0.8, 97, origin="tome-r8")

    assert best_preset([BASELINE, mine, theirs, slow], HALF, batch=8) is theirs


def test_a_doubtful_policy_displaces_no_sure_one_from_the_front() -> None:
    sure, better = finalist(12, 0.46, 95), finalist(8, 0.4, 96)
    doubtful = replace(better, comparison=replace(better.comparison, cautions=(Caution.BUSY,)))

    assert on_front([sure, better]) == (better,)
    assert on_front([sure, doubtful]) == (sure, doubtful)


def test_a_policy_that_is_faster_in_milliseconds_alone_stays_on_the_front() -> None:
    drifted, better = finalist(12, 0.46, 95), finalist(8, 0.4, 96)
    fast = replace(drifted.comparison, candidate=Latency((3.0,), 1))
    slow = replace(better.comparison, candidate=Latency((7.0,), 1))

    front = on_front([replace(drifted, comparison=fast), replace(better, comparison=slow)])

    assert len(front) == 2


def test_a_policy_that_is_more_often_right_by_over_the_margin_stays_on_the_front() -> None:
    right, better = finalist(12, 0.46, 95, kl=0.11, by="kl"), finalist(8, 0.4, 92, kl=0.1, by="kl")

    assert on_front([right, better]) == (right, better)
