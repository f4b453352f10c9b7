"""Starting points of a search, and the fastest policies that its space can reach."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from math import ceil
from typing import Any

from tokensearch.costs.forecast import Forecast
from tokensearch.policy import ModelSpec, Policy, Prune
from tokensearch.policy.rescale import match_latency
from tokensearch.records.launch_bound import WAY_OUT, LaunchCost
from tokensearch.search.controls import alternate
from tokensearch.search.space.space import SearchSpace

# Shares of the target to which schedules are scaled, in turn: just under it, where the answer is,
# and further down, where the front goes on. Each for a published shape and an early prune.
LATENCY_SHARES = (0.97, 0.97, 0.75, 0.75, 0.55, 0.55, 0.4, 0.4)
EARLY_PRUNES = (1, 2, 3)  # numbers of blocks that prune


def starting_points(
    space: SearchSpace,
    schedules: Iterable[Policy],
    *,
    ratio: Callable[[Policy], float],
    target_ratio: float,
) -> Iterator[Mapping[str, object]]:
    """Yield parameters of the space's schedules nearest to `schedules`, scaled to the target.

    ratio         latency of a policy as a share of the baseline's
    target_ratio  the target in the same terms
    """
    for schedule, share in zip(schedules, cycle(LATENCY_SHARES), strict=False):
        scaled = match_latency(schedule, share * target_ratio, ratio)
        yield space.nearest(scaled, schedule.model)


def early_prunes(policy: Policy, blocks: tuple[int, ...]) -> Iterator[Policy]:
    """Yield schedules that prune half of the tokens at each of the first blocks that may reduce."""
    model = policy.model
    for count in EARLY_PRUNES:
        steps, left = [], model.patch_tokens
        for block in blocks[:count]:
            left = max(1, left // 2)
            steps.append(Prune(block, left))
        yield replace(policy, steps=tuple(steps))


ROUNDS = 4  # over all parameters; the third changed nothing in any shipped space

IsAllowed = Callable[[Policy], bool]


@dataclass(frozen=True, slots=True)
class FastestPolicy:
    """The fastest schedule of its kind."""

    kind: str  # "prune", "pool", or "any"
    policy: Policy
    ratio: float  # predicted


def fastest_policies(
    space: SearchSpace, model: ModelSpec, ratio: Callable[[Policy], float]
) -> tuple[FastestPolicy, ...]:
    """Return the fastest schedule of the space, and the fastest by one operator alone."""
    fastest: list[FastestPolicy] = []
    for kind in ("any", "prune", "pool"):
        policy = _find_fastest(space, model, ratio, partial(_is_of_kind, kind))
        if policy.steps and all(policy != known.policy for known in fastest):
            fastest.append(FastestPolicy(kind, policy, ratio(policy)))
    return tuple(fastest)


def describe_reach(fastest: Sequence[FastestPolicy]) -> Iterator[str]:
    """Yield what the space can reach, a line per kind."""
    for policy in fastest:
        by = "by any steps" if policy.kind == "any" else f"by {policy.kind} alone"
        counts = " ".join(map(str, policy.policy.patch_tokens_per_block))
        yield f"within reach {by}: {policy.ratio:.2f}x (predicted), tokens {counts}"


def describe_margin(forecast: Forecast) -> str:
    """Say how far off predictions may be; nothing is known before anything was timed here."""
    if forecast.calibrated:
        return f"within {100 * forecast.margin:.0f} %"
    return "by multiply-accumulates alone, against which nothing was timed yet"


def describe_out_of_reach(target: str, least: float, forecast: Forecast) -> str:
    """Say what can be asked for in place of a target that no steps reach.

    least  the fastest, as a share of the baseline's latency, as predicted
    """
    return (
        f"target {target} is out of reach: ask for {ceil(100 * least) / 100:.2f}x or more. The "
        f"fastest schedule, of this space or published, is predicted at {least:.3g}x, "
        f"{describe_margin(forecast)}"
    )


def launch_floor_hint(launching: LaunchCost | None, target_ratio: float) -> str:
    """Return a hint where launching alone takes more than the target allows; else "".

    target_ratio  the target as a share of the baseline's latency
    """
    if launching is None or launching.share < target_ratio:
        return ""
    return f"; launching the baseline's pass alone takes {launching.share:.2f}x: {WAY_OUT}"


def _is_of_kind(kind: str, policy: Policy) -> bool:
    return kind == "any" or all(step.op == kind for step in policy.steps)


def _find_fastest(
    space: SearchSpace, model: ModelSpec, ratio: Callable[[Policy], float], is_allowed: IsAllowed
) -> Policy:
    """Descend by one parameter at a time, from no reduction and from the most.

    Where a first step costs more than it saves, only the second start leads anywhere.
    """
    most = {name: values[0] for name, values in space.dimensions(model).items()}
    descents = [
        _descend(space, model, start, ratio=ratio, is_allowed=is_allowed)
        for start in (space.nearest(Policy(model), model), most)
        if is_allowed(space.build(start, model))
    ]
    return min(descents, key=ratio)


def _descend(
    space: SearchSpace,
    model: ModelSpec,
    chosen: dict[str, Any],
    *,
    ratio: Callable[[Policy], float],
    is_allowed: IsAllowed,
) -> Policy:
    best = space.build(chosen, model)
    for _ in range(ROUNDS):
        before = best
        for name in space.dimensions(model):
            for other in _variants(space, model, chosen, name):
                policy = space.build(other, model)
                if is_allowed(policy) and ratio(policy) < ratio(best):
                    chosen, best = other, policy
        if best == before:
            break
    return best


def _variants(
    space: SearchSpace, model: ModelSpec, chosen: Mapping[str, Any], name: str
) -> Iterator[dict[str, Any]]:
    for value in space.dimensions(model)[name]:
        yield {**chosen, name: value}


def choose_first(
    space: SearchSpace,
    model: ModelSpec,
    neighbours: Iterable[Policy],
    fixed: Iterable[Policy],
    *,
    ratio: Callable[[Policy], float],
    target_ratio: float,
) -> list[Mapping[str, Any]]:
    """Return what is proposed first: what won elsewhere, and known shapes bent to the target.

    neighbours    schedules of other runs
    fixed         published ones
    ratio         predicted latency as a share of the baseline's
    target_ratio  likewise
    """
    known = [replace(policy, model=model, evidence=()) for policy in neighbours]
    near = [space.nearest(policy, model) for policy in known]
    published = [policy for policy in fixed if policy.steps]
    early = early_prunes(Policy(model), space.blocks(model))
    shapes = [*(each for each in known if each.steps), *alternate(published, early)]
    return [*near, *starting_points(space, shapes, ratio=ratio, target_ratio=target_ratio)]
