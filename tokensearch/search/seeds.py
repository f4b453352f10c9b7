"""Where a search begins: published schedules, controls, and plain ladders near the target."""

from collections.abc import Iterator

from tokensearch.policy import PRESETS, ModelSpec, Policy, Prune, at_random, mac_share
from tokensearch.search.space import Space

_CONTROLLED = ("topk-0.7", "tome-r13")  # presets whose counts are also tried with random tokens
_LADDER_TARGETS = (1.0, 0.85)  # of the wanted share: latency falls less than multiply-accumulates


def published(model: ModelSpec, *, scored: bool, prefix_read: bool) -> Iterator[tuple[str, Policy]]:
    """Yield every preset that fits the model, and random controls, by name."""
    for name, preset in PRESETS.items():
        if not preset.fits(model):
            continue
        policy = preset.build(model)
        if _can_follow(policy, scored=scored, prefix_read=prefix_read):
            yield name, policy
            if name in _CONTROLLED:
                yield f"random-{name}", at_random(policy)


def ladders(space: Space, model: ModelSpec, *, share: float) -> Iterator[dict[str, object]]:
    """Yield sampler parameters of simple schedules whose blocks cost about `share` of the whole.

    One operator throughout, at the first site, the first two, or the first three: the shapes that
    the literature found by hand. The search improves on them.
    """
    blocks = space.blocks(model)
    for wanted in _LADDER_TARGETS:
        for op in space.ops:
            for sites in (1, 2, 3):
                if op != "keep" and sites <= len(blocks):
                    yield _ladder(space, model, op=op, sites=blocks[:sites], share=wanted * share)


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


def _can_follow(policy: Policy, *, scored: bool, prefix_read: bool) -> bool:
    needs_score = any(isinstance(step, Prune) and step.score != "random" for step in policy.steps)
    return (scored or not needs_score) and (prefix_read or policy.last_block == "full")


class Fixed:
    """Answers every suggestion from a table: a schedule of the space by its parameters."""

    def __init__(self, parameters: dict[str, object]) -> None:
        self.parameters = parameters

    def suggest_categorical(self, name: str, choices: object) -> object:
        """Return the value that the table has for `name`."""
        return self.parameters[name]
