"""Where a search starts, and what its space can reach."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import Any

from tokensearch.costs.match_latency import match_latency
from tokensearch.policy import ModelSpec, Policy, Prune
from tokensearch.records.launch_bound import WAY_OUT, LaunchCost
from tokensearch.search.space.space import SearchSpace

# Shares of the wanted latency that shapes are bent to, in turn: just under the target, where the
# answer is, and further down, where the front goes on.
LATENCY_SHARES = (0.97, 0.75, 0.55, 0.4)
EARLY_SITES = (1, 2, 3)


def starting_points(
    space: SearchSpace,
    shapes: Iterable[Policy],
    *,
    ratio: Callable[[Policy], float],
    limit: float,
) -> Iterator[Mapping[str, object]]:
    """Yield parameters of the space's schedules nearest to `shapes`, bent to the target.

    ratio  latency of a policy as a share of the baseline's
    limit  the target in the same terms
    """
    for shape, share in zip(shapes, cycle(LATENCY_SHARES), strict=False):
        yield space.nearest(match_latency(shape, share * limit, ratio), shape.model)


def early_prunes(policy: Policy, blocks: tuple[int, ...]) -> Iterator[Policy]:
    """Yield plain prunes at the first blocks that may reduce: half of the tokens at each."""
    model = policy.model
    for sites in EARLY_SITES:
        steps, left = [], model.patch_tokens
        for block in blocks[:sites]:
            left = max(1, left // 2)
            steps.append(Prune(block, left))
        yield replace(policy, steps=tuple(steps))


ROUNDS = 4  # over all places; the third has changed nothing in any shipped space

Allowed = Callable[[Policy], bool]


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
    found: list[FastestPolicy] = []
    for kind in ("any", "prune", "pool"):
        policy = _fastest(space, model, ratio, partial(_of_kind, kind))
        if policy.steps and all(kind == "any" or policy != one.policy for one in found):
            found.append(FastestPolicy(kind, policy, ratio(policy)))
    return tuple(found)


def describe_reach(found: Sequence[FastestPolicy]) -> Iterator[str]:
    """Say what the space can reach, a line per kind."""
    for one in found:
        by = "by any steps" if one.kind == "any" else f"by {one.kind} alone"
        counts = " ".join(map(str, one.policy.patch_tokens_per_block))
        yield f"within reach {by}: {one.ratio:.2f}x (predicted), tokens {counts}"


def launch_floor_hint(launching: LaunchCost | None, limit: float) -> str:
    """Name the way out where launching alone takes more than a target allows; else nothing.

    limit  the target, of the baseline's latency
    """
    if launching is None or launching.share < limit:
        return ""
    return f"; launching the baseline's pass alone takes {launching.share:.2f}x: {WAY_OUT}"


def _of_kind(kind: str, policy: Policy) -> bool:
    return kind == "any" or all(step.op == kind for step in policy.steps)


def _fastest(
    space: SearchSpace, model: ModelSpec, ratio: Callable[[Policy], float], allowed: Allowed
) -> Policy:
    """Change one place at a time for the better, from little and from much reduction on.

    Where a first step costs more than it saves, only the second start leads anywhere.
    """
    most = {name: values[0] for name, values in space.dimensions(model).items()}
    found = [
        _descended(space, model, start, ratio=ratio, allowed=allowed)
        for start in (space.nearest(Policy(model), model), most)
        if allowed(space.build(start, model))
    ]
    return min(found, key=ratio)


def _descended(
    space: SearchSpace,
    model: ModelSpec,
    chosen: dict[str, Any],
    *,
    ratio: Callable[[Policy], float],
    allowed: Allowed,
) -> Policy:
    best = space.build(chosen, model)
    for _ in range(ROUNDS):
        before = best
        for name in space.dimensions(model):
            for other in _variants(space, model, chosen, name):
                policy = space.build(other, model)
                if allowed(policy) and ratio(policy) < ratio(best):
                    chosen, best = other, policy
        if best == before:
            break
    return best


def _variants(
    space: SearchSpace, model: ModelSpec, chosen: Mapping[str, Any], name: str
) -> Iterator[dict[str, Any]]:
    for value in space.dimensions(model)[name]:
        yield {**chosen, name: value}
