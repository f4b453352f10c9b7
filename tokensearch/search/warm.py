"""Where a search begins: shapes that were good elsewhere, made as fast as the target asks."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import cycle

from tokensearch.costs.bending import at_latency
from tokensearch.policy import Policy, Prune
from tokensearch.search.space import Space

# Shares of the wanted latency that shapes are bent to, in turn: just under the target, where the
# answer is, and further down, where the front goes on.
UNDER = (0.97, 0.75, 0.55, 0.4)
EARLY_SITES = (1, 2, 3)


def seeds(
    space: Space,
    shapes: Iterable[Policy],
    *,
    ratio: Callable[[Policy], float],
    limit: float,
) -> Iterator[Mapping[str, object]]:
    """Yield parameters of the space's schedules nearest to `shapes`, bent to the target.

    ratio  latency of a policy as a share of the un-reduced model's
    limit  the target in the same terms
    """
    for shape, share in zip(shapes, cycle(UNDER), strict=False):
        yield space.nearest(at_latency(shape, share * limit, ratio), shape.model)


def early(policy: Policy, blocks: tuple[int, ...]) -> Iterator[Policy]:
    """Yield plain prunes at the first blocks that may reduce: half of the tokens at each."""
    model = policy.model
    for sites in EARLY_SITES:
        steps, left = [], model.patch_tokens
        for block in blocks[:sites]:
            left = max(1, left // 2)
            steps.append(Prune(block, left))
        yield replace(policy, steps=tuple(steps))
