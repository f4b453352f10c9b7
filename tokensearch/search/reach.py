"""What a search space can reach at all: predicted, before anything is run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tokensearch.launch_bound import WAY_OUT, Launching
from tokensearch.policy import ModelSpec, Policy
from tokensearch.search.space import Space

ROUNDS = 4  # over all places; the third has changed nothing in any shipped space

Allowed = Callable[[Policy], bool]


@dataclass(frozen=True, slots=True)
class Reach:
    """The fastest schedule of its kind."""

    kind: str  # "prune", "pool", or "any"
    policy: Policy
    ratio: float  # predicted


def reaches(space: Space, model: ModelSpec, ratio: Callable[[Policy], float]) -> tuple[Reach, ...]:
    """Return the fastest schedule of the space, and the fastest by one operator alone."""
    found: list[Reach] = []
    for kind in ("any", "prune", "pool"):
        policy = _fastest(space, model, ratio, partial(_of_kind, kind))
        if policy.steps and all(kind == "any" or policy != one.policy for one in found):
            found.append(Reach(kind, policy, ratio(policy)))
    return tuple(found)


def reach_lines(found: Sequence[Reach]) -> Iterator[str]:
    """Say what the space can reach, a line per kind."""
    for one in found:
        by = "by any steps" if one.kind == "any" else f"by {one.kind} alone"
        counts = " ".join(map(str, one.policy.patch_tokens_per_block))
        yield f"within reach {by}: {one.ratio:.2f}x (predicted), tokens {counts}"


def floor_words(launching: Launching | None, limit: float) -> str:
    """Name the way out where launching alone takes more than a target allows; else nothing.

    limit  the target, of the un-reduced model's latency
    """
    if launching is None or launching.share < limit:
        return ""
    return f"; launching the un-reduced model's pass alone takes {launching.share:.2f}x: {WAY_OUT}"


def _of_kind(kind: str, policy: Policy) -> bool:
    return kind == "any" or all(step.op == kind for step in policy.steps)


def _fastest(
    space: Space, model: ModelSpec, ratio: Callable[[Policy], float], allowed: Allowed
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
    space: Space,
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
    space: Space, model: ModelSpec, chosen: Mapping[str, Any], name: str
) -> Iterator[dict[str, Any]]:
    for value in space.dimensions(model)[name]:
        yield {**chosen, name: value}
