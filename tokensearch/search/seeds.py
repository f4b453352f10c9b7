"""Where a search begins: published schedules, controls, and plain ladders near the target."""

from collections.abc import Iterator, Sequence
from statistics import median

from tokensearch.policy import (
    CLASS_SCORES,
    ModelSpec,
    Policy,
    Prune,
    at_random,
    find,
    mac_share,
    preset,
)
from tokensearch.policy.file import policy_from_json
from tokensearch.records import Trial
from tokensearch.search.space import Space

# Presets that every search tries where they were made for the model: all of them would take most
# of a short run. Both controls, ToMe at three strengths, and of each other method the one nearest
# to half or two thirds of the work; the un-reduced model first, since the rest is held against it.
SEEDED = (
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
# Around the target: share of the wanted latency, operator, sites.
_LADDERS = (
    (0.93, "prune", 2),
    (0.93, "prune", 3),
    (0.93, "pool", 2),
    (0.8, "prune", 2),
    (0.7, "prune", 2),
    (1.3, "prune", 2),
)
# Pruning DeiT-T-sized blocks on two CPU cores saved 0.75 of what multiply-accumulates promised.
_USUAL_WORTH = 0.75
_LEAST_WORTH = 0.3  # less is noise: it would ask for schedules that keep nothing


def published(model: ModelSpec, *, scored: bool, prefix_read: bool) -> Iterator[tuple[str, Policy]]:
    """Yield the seeded presets that were made for the model, and random controls, by name."""
    for name in (*SEEDED, *_SIZED.get(model.width, _USUAL_SIZE)):
        chosen = find(name)
        if not chosen.made_for(model) or (chosen.last_block == "prefix_only" and not prefix_read):
            continue
        policy = preset(name, model)
        if scored or not policy.scores & CLASS_SCORES:
            yield name, policy
            if name in _CONTROLLED:
                yield f"random-{name}", at_random(policy)


def ladders(
    space: Space, model: ModelSpec, trials: Sequence[Trial], *, limit: float
) -> Iterator[dict[str, object]]:
    """Yield sampler parameters of simple schedules around `limit` times the baseline's latency.

    First a single early site with every share: the whole range of latencies, roughly. Then one
    operator at the first two or three sites, the shapes that the literature found by hand, most
    of them just under the target.
    """
    blocks = space.blocks(model)
    single = "prune" if "prune" in space.ops else "pool"
    for left in space.left:
        yield _parameters(space, model, op=single, sites=blocks[:1], left=left)
    worth = _worth(trials)
    for share, op, sites in _LADDERS:
        if op in space.ops and sites <= len(blocks):
            saved = (1 - min(1.0, share * limit)) / worth
            yield _ladder(space, model, op=op, sites=blocks[:sites], share=max(0.0, 1 - saved))


def _worth(trials: Sequence[Trial]) -> float:
    """Share of latency saved per share of multiply-accumulates saved, by the prunes timed so far.

    Below 1, since stem, head and the steps themselves cost what they cost.
    """
    found = []
    for trial in trials:
        policy = policy_from_json(trial.policy)
        prunes = policy.steps and all(isinstance(step, Prune) for step in policy.steps)
        if trial.comparison is not None and prunes and mac_share(policy) < 1:
            found.append((1 - trial.comparison.ratio) / (1 - mac_share(policy)))
    return max(_LEAST_WORTH, median(found)) if found else _USUAL_WORTH


def _ladder(
    space: Space, model: ModelSpec, *, op: str, sites: tuple[int, ...], share: float
) -> dict[str, object]:
    """Parameters with the kept share, the same at every site, that comes nearest to `share`."""
    options = [_parameters(space, model, op=op, sites=sites, left=left) for left in space.left]
    return min(options, key=lambda p: abs(mac_share(space.suggest(Fixed(p), model)) - share))


def _parameters(
    space: Space, model: ModelSpec, *, op: str, sites: tuple[int, ...], left: float
) -> dict[str, object]:
    chosen: dict[str, object] = {
        "proportional_attention": space.proportional_attention[0],
        "last_block": space.last_block[0],
    }
    for block in space.blocks(model):
        chosen[f"op.{block}"] = op if block in sites else "keep"
        chosen[f"left.{block}"] = left
    return chosen


class Fixed:
    """Answers every suggestion from a table: a schedule of the space by its parameters."""

    def __init__(self, parameters: dict[str, object]) -> None:
        self.parameters = parameters

    def suggest_categorical(self, name: str, choices: object) -> object:
        """Return the value that the table has for `name`."""
        return self.parameters[name]
