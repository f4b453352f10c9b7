"""Where a search begins: published schedules, controls, and plain ladders near the target."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

from tokensearch.policy import (
    CLASS_SCORES,
    ModelSpec,
    Policy,
    Pool,
    Prune,
    Step,
    at_random,
    find,
    mac_share,
    preset,
)
from tokensearch.policy.checks import kept_range
from tokensearch.policy.file import policy_from_json
from tokensearch.records import Trial
from tokensearch.search.encoding import Choice
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
) -> Iterator[dict[str, Choice]]:
    """Yield sampler parameters of simple schedules around `limit` times the baseline's latency.

    First a single early site with every other share: the whole range of latencies, roughly. Then
    one operator at two or three early sites, the shapes that the literature found by hand, most of
    them just under the target.
    """
    blocks = _apart(space.blocks(model))
    single = "prune" if "prune" in space.ops else "pool"
    for left in space.left[::2]:
        yield space.nearest(_simple(space, model, op=single, sites=blocks[:1], left=left), model)
    worth = _worth(trials)
    for share, op, sites in _LADDERS:
        if op in space.ops and sites <= len(blocks):
            saved = (1 - min(1.0, share * limit)) / worth
            yield _ladder(space, model, op=op, sites=blocks[:sites], share=max(0.0, 1 - saved))


def _apart(blocks: Sequence[int]) -> tuple[int, ...]:
    """Blocks past 0, whose class attention knows little yet, and none next to another.

    Of two sites side by side the first alone saves nearly as much, for half the price.
    """
    chosen: list[int] = []
    for block in blocks:
        if block >= 1 and (not chosen or block > chosen[-1] + 1):
            chosen.append(block)
    return tuple(chosen) or tuple(blocks)


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
) -> dict[str, Choice]:
    """Parameters with the kept share, the same at every site, that comes nearest to `share`."""
    options = [
        space.nearest(_simple(space, model, op=op, sites=sites, left=left), model)
        for left in space.left
    ]
    return min(options, key=lambda p: abs(mac_share(space.build(p, model)) - share))


def _simple(
    space: Space, model: ModelSpec, *, op: str, sites: tuple[int, ...], left: float
) -> Policy:
    """One operator that leaves the share `left` of what reaches it, as far as it can."""
    steps: list[Step] = []
    tokens = model.patch_tokens
    for block in sites:
        step: Step = Prune(block, tokens) if op == "prune" else Pool(block, tokens)
        least, _ = kept_range(step, tokens)
        tokens = max(least, round(left * tokens))
        steps.append(replace(step, keep=tokens))
    return Policy(
        model,
        tuple(steps),
        proportional_attention=space.proportional_attention[0],
        last_block=space.last_block[0],
    )
