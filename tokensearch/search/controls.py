"""What a search is compared with: the baseline, published schedules, and random controls."""

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, zip_longest
from typing import TypeVar

from tokensearch.errors import PolicyError
from tokensearch.policy import (
    CLASS_SCORES,
    CONTROL,
    PRESETS,
    RANDOM,
    RESCALED,
    ModelSpec,
    Policy,
    at_random,
    find,
    preset,
)
from tokensearch.search.space.space import SearchSpace

T = TypeVar("T")

# Presets that every search tries where they were made for the model; all presets would take most of
# a short run. They are both controls, ToMe at three strengths, and of each other method the one
# nearest to half or two thirds of the work. The baseline is first: the rest is compared with it.
CONTROLS = (
    "none",
    "last-cls",
    "tome-r13",
    "tome-l-r7",
    "ppt-r50-pool",
    "topk-0.7",
)
# DiffRate's lists belong to a model, so the one of its own size near half of the work.
_BY_WIDTH = {
    192: ("diffrate-t-0.6",),
    768: ("diffrate-b-8.7",),
    1024: ("diffrate-mae-l-31.0",),
}
_DEFAULT_WIDTH = ("diffrate-s-2.3",)
_WITH_RANDOM_CONTROL = ("topk-0.7",)  # presets whose counts are also tried with random tokens
# Of each method the slowest published schedule that is predicted to meet the target, and of those
# the slowest few: what a user with this target would have taken.
NEAREST = 3
RANDOM_CONTROLS = 8  # enough for the best of them to mean something
CONTROL_DRAWS = 400  # from the space, among which are the few that stand for random search
LEAST_USED = 0.7  # of the target's latency


def fixed_controls(
    model: ModelSpec, *, scored: bool, prefix_read: bool
) -> Iterator[tuple[str, Policy]]:
    """Yield the controls that were made for the model, presets and random ones, by name."""
    for name in (*CONTROLS, *_BY_WIDTH.get(model.width, _DEFAULT_WIDTH)):
        policy = _preset_for(name, model, scored=scored, prefix_read=prefix_read)
        if policy is not None:
            yield name_preset(name, model), policy
            if name in _WITH_RANDOM_CONTROL:
                yield f"{RANDOM}{name_preset(name, model)}", at_random(policy)


def nearest_presets(
    model: ModelSpec,
    *,
    scored: bool,
    prefix_read: bool,
    ratio: Callable[[Policy], float],
    target_ratio: float,
) -> Iterator[tuple[str, Policy]]:
    """Yield the published schedules that a user with this target would take, by name.

    ratio         predicted latency as a share of the baseline's
    target_ratio  the target in the same terms
    """
    best: dict[str, tuple[float, str, Policy]] = {}
    for name, published in PRESETS.items():
        policy = _preset_for(name, model, scored=scored, prefix_read=prefix_read)
        if policy is None or published.source == CONTROL or (share := ratio(policy)) > target_ratio:
            continue
        if published.source not in best or share > best[published.source][0]:
            best[published.source] = share, name, policy
    for _, name, policy in sorted(best.values(), key=lambda one: -one[0])[:NEAREST]:
        yield name_preset(name, model), policy


def _preset_for(name: str, model: ModelSpec, *, scored: bool, prefix_read: bool) -> Policy | None:
    """Return a preset, carried over by ratio if need be; None if the model cannot follow it.

    Those that were made for another depth are left out: too little of them is left.
    """
    published = find(name)
    if published.blocks not in {None, model.blocks}:
        return None
    if published.last_block == "prefix_only" and not prefix_read:
        return None
    try:
        policy = preset(name, model, rescale=True)
    except PolicyError:  # an operator that this count of patches does not allow
        return None
    return policy if scored or not policy.scores & CLASS_SCORES else None


def name_preset(name: str, model: ModelSpec) -> str:
    """Name a preset as it was tried: `tome-r13-rescaled` where it was made for other counts."""
    return name if find(name).made_for(model) else f"{name}{RESCALED}"


def draw_controls(
    space: SearchSpace,
    model: ModelSpec,
    *,
    ratio: Callable[[Policy], float],
    target_ratio: float,
    seed: int,
) -> Iterator[Policy]:
    """Yield the few schedules drawn from a space that meet the target, by not too much.

    ratio         predicted latency as a share of the baseline's
    target_ratio  likewise
    """
    dice, dimensions = random.Random(seed), space.dimensions(model)
    draws = (
        space.build({name: dice.choice(values) for name, values in dimensions.items()}, model)
        for _ in range(CONTROL_DRAWS)
    )
    others = {policy.schedule_hash: policy for policy in draws}.values()  # none twice
    meeting = (p for p in others if LEAST_USED * target_ratio <= ratio(p) <= target_ratio)
    return islice(meeting, RANDOM_CONTROLS)


def alternate(first: Iterable[T], second: Iterable[T]) -> Iterator[T]:
    """Yield items of two kinds in turn, until both are used up."""
    for pair in zip_longest(first, second):
        yield from (item for item in pair if item is not None)
