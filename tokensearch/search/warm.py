"""Where a search begins: shapes that were good elsewhere, made as fast as the target asks."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import cycle

from tokensearch.policy import Policy, Prune, Step
from tokensearch.policy.checks import kept_range
from tokensearch.search.space import Space

# Shares of the wanted latency that shapes are bent to, in turn: just under the target, where the
# answer is, and further down, where the front goes on.
UNDER = (0.97, 0.75, 0.55, 0.4)
EARLY_SITES = (1, 2, 3)
HALVINGS = 12  # of the exponent: it is then known to a thousandth
LEAST, MOST = 0.05, 8.0  # exponents: as good as nothing is dropped, one token of 196 is left


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


def at_latency(shape: Policy, wanted: float, ratio: Callable[[Policy], float]) -> Policy:
    """Return `shape` with as many tokens everywhere as take it nearest below `wanted`."""
    low, high = LEAST, MOST
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        if ratio(bent(shape, middle)) > wanted:
            low = middle
        else:
            high = middle
    return bent(shape, high)


def bent(shape: Policy, exponent: float) -> Policy:
    """Raise the share of tokens left after every step to a power: below 1 more are left.

    Of a pool that cannot merge so many, as few as it can leave.
    """
    tokens = left = shape.model.patch_tokens
    steps: list[Step] = []
    for step in shape.steps:
        least, most = kept_range(step, left)
        keep = round(tokens * (step.keep / tokens) ** exponent)
        changed = replace(step, keep=min(most, max(least, keep)))
        left = changed.keep
        steps.append(changed)
    return replace(shape, steps=tuple(steps), evidence=())
