from typing import Any

import pytest

from tests.search.tiny import promised
from tokensearch.costs.forecast import Forecast
from tokensearch.policy import ModelSpec, Policy, Pool, Prune, mac_share, preset
from tokensearch.policy.rescale import match_latency, scale_counts
from tokensearch.search import load_space
from tokensearch.search.loop import SearchLoop
from tokensearch.search.warm_start import (
    LATENCY_SHARES,
    choose_first,
    describe_margin,
    early_prunes,
    starting_points,
)

DEIT = ModelSpec("deit", blocks=12, patch_tokens=196, prefix_tokens=1, width=192)


def test_a_schedule_is_scaled_to_its_latency() -> None:
    for name in ("topk-0.7", "evit-0.5", "diffrate-t-0.8"):
        found = match_latency(preset(name, DEIT), 0.5, mac_share)

        assert 0.47 < mac_share(found) <= 0.5
        assert [step.block for step in found.steps] == [s.block for s in preset(name, DEIT).steps]


def test_a_pool_is_scaled_as_far_as_it_can_merge() -> None:
    found = match_latency(Policy(DEIT, (Pool(1, 150),)), 0.1, mac_share)

    assert found.steps == (Pool(1, 98),)


def test_the_first_power_changes_nothing() -> None:
    policy = preset("diffrate-t-0.8", DEIT)

    assert scale_counts(policy, 1.0).steps == policy.steps


def test_more_is_left_below_the_first_power_and_less_above() -> None:
    policy = Policy(DEIT, (Prune(3, 98), Prune(6, 49)))

    assert [step.keep for step in scale_counts(policy, 0.5).steps] == [139, 98]
    assert [step.keep for step in scale_counts(policy, 2).steps] == [49, 12]


@pytest.mark.parametrize("name", ["default", "per_block", "prune_only"])
def test_starting_points_are_of_the_space_and_near_the_target(name: str) -> None:
    space = load_space(name)
    schedules = [*early_prunes(Policy(DEIT), space.blocks(DEIT)), preset("topk-0.7", DEIT)]

    found = [
        space.build(one, DEIT)
        for one in starting_points(space, schedules, ratio=mac_share, target_ratio=0.5)
    ]

    assert len(found) == len(schedules)
    shares = [mac_share(policy) for policy in found]
    assert shares[:2] == pytest.approx([0.5 * share for share in LATENCY_SHARES[:2]], rel=0.25)
    assert max(shares[2:]) < min(shares[:2])


def test_an_error_is_quoted_only_where_something_was_timed() -> None:
    guessed, swept = Forecast(mac_share, 0.15), Forecast(mac_share, 0.02, known_worst=0.05)

    assert describe_margin(guessed).endswith("against which nothing was timed yet")
    assert describe_margin(swept).startswith("within ")


def known(forecast: Forecast, target_ratio: float) -> SearchLoop:
    """A search that has nothing but predictions."""
    nothing: Any = None
    return SearchLoop(*(nothing,) * 5, forecast=forecast, objective="kl", target_ratio=target_ratio)


def test_presets_nearest_to_the_target_come_first_and_the_very_first_surely_meets_it() -> None:
    model = ModelSpec("any", 12, 196, 1, 192)
    counts = {"over": 104, "deep": 60, "under": 95, "sure": 80, "far": 190}
    named = [(name, Policy(model, (Prune(2, keep),))) for name, keep in counts.items()]
    search = known(Forecast(mac_share, 0.05), mac_share(Policy(model, (Prune(2, 100),))))

    order = search.order_by_promise(named)

    assert [name for name, _ in order] == ["sure", "over", "under", "deep"]


def test_a_preset_is_not_tried_once_a_timing_has_shown_it_to_be_too_slow() -> None:
    """Latencies were asked of the forecast as it was before presets were timed."""
    model = ModelSpec("any", 12, 196, 1, 192)
    first, second = (Policy(model, (Prune(2, keep),)) for keep in (90, 92))
    search = known(Forecast(mac_share, 0.05), mac_share(first) + 0.02)
    order = search.order_by_promise([("first", first), ("second", second)])

    name, policy = next(order)
    search.forecast = search.forecast.learned(policy, promised(0.95))

    assert name == "second"
    assert list(order) == []


def test_published_shapes_and_early_prunes_are_scaled_to_the_same_latencies_in_turn() -> None:
    model = ModelSpec("deit", 12, 196, 1, 384)
    space, published = load_space("default"), preset("tome-r13", model)

    first = choose_first(
        space, model, (), [Policy(model), published], ratio=mac_share, target_ratio=0.5
    )

    shapes = [space.build(chosen, model) for chosen in first]
    assert [shape.steps[0].op for shape in shapes[:2]] == ["pool", "prune"]
    for shape in shapes[:2]:
        assert mac_share(shape) == pytest.approx(0.5 * LATENCY_SHARES[0], rel=0.25)
