"""What a search is held against: the baseline, published schedules, and random controls."""

from collections.abc import Callable, Iterator

from tokensearch.policy import (
    CLASS_SCORES,
    CONTROL,
    PRESETS,
    ModelSpec,
    Policy,
    at_random,
    find,
    preset,
)

# Presets that every search tries where they were made for the model: all of them would take most
# of a short run. Both controls, ToMe at three strengths, and of each other method the one nearest
# to half or two thirds of the work; the baseline first, since the rest is held against it.
CONTROLS = (
    "none",
    "last-cls",
    "tome-r13",
    "tome-l-r7",
    "ppt-r50-pool",
    "topk-0.7",
)
# DiffRate's lists belong to a model, so one of its own size: near half of the work.
_SIZED = {
    192: ("diffrate-t-0.6",),
    768: ("diffrate-b-8.7",),
    1024: ("diffrate-mae-l-31.0",),
}
_USUAL_SIZE = ("diffrate-s-2.3",)
_CONTROLLED = ("topk-0.7",)  # presets whose counts are also tried with random tokens
# Of each method the published schedule that is predicted to meet the target by least, and of those
# the slowest few: what somebody with this target would have taken.
NEAREST = 3


def seeded_controls(
    model: ModelSpec, *, scored: bool, prefix_read: bool
) -> Iterator[tuple[str, Policy]]:
    """Yield the seeded presets that were made for the model, and random controls, by name."""
    for name in (*CONTROLS, *_SIZED.get(model.width, _USUAL_SIZE)):
        policy = _fitting(name, model, scored=scored, prefix_read=prefix_read)
        if policy is not None:
            yield name, policy
            if name in _CONTROLLED:
                yield f"random-{name}", at_random(policy)


def nearest_presets(
    model: ModelSpec,
    *,
    scored: bool,
    prefix_read: bool,
    ratio: Callable[[Policy], float],
    limit: float,
) -> Iterator[tuple[str, Policy]]:
    """Yield the published schedules that somebody with this target would take, by name.

    ratio  predicted latency as a share of the baseline's
    limit  the target in the same terms
    """
    best: dict[str, tuple[float, str, Policy]] = {}
    for name, known in PRESETS.items():
        policy = _fitting(name, model, scored=scored, prefix_read=prefix_read)
        if policy is None or known.source == CONTROL or (share := ratio(policy)) > limit:
            continue
        if known.source not in best or share > best[known.source][0]:
            best[known.source] = share, name, policy
    for _, name, policy in sorted(best.values(), key=lambda one: -one[0])[:NEAREST]:
        yield name, policy


def _fitting(name: str, model: ModelSpec, *, scored: bool, prefix_read: bool) -> Policy | None:
    """Return a preset, None if it was not made for the model or cannot be followed by it."""
    chosen = find(name)
    if not chosen.made_for(model) or (chosen.last_block == "prefix_only" and not prefix_read):
        return None
    policy = preset(name, model)
    return policy if scored or not policy.scores & CLASS_SCORES else None
