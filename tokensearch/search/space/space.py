"""The search space: which blocks, operators, counts and options a search may propose."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations, product
from typing import Any, TypeVar

from tokensearch.errors import SpaceError
from tokensearch.policy import CLASS_SCORES, ModelSpec, Policy, Pool, Prune
from tokensearch.policy.policy import LastBlock
from tokensearch.policy.steps import Match, Rest, Score
from tokensearch.search.space.encoding import (
    Choice,
    Choices,
    Encoding,
    EncodingContext,
    StepBuilder,
    block_reductions,
)
from tokensearch.search.space.suggest import SuggestsParameters, suggest_value

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """Every schedule that a search may propose, for models of any depth.

    The encoding decides how steps are written as choices. Scores, matches, what becomes of the
    discarded tokens, and the two options of a policy hold for the whole schedule.
    """

    name: str
    encoding: Encoding
    first: int  # allowed blocks: first, first + stride, ... up to last
    last: int  # negative: counted from the end
    stride: int
    by: int  # counts are multiples of this
    score: tuple[Score, ...]
    match: tuple[Match, ...]
    rest: tuple[Rest, ...]
    proportional_attention: tuple[bool, ...]
    last_block: tuple[LastBlock, ...]
    digest: str  # of the file's text

    @property
    def ops(self) -> tuple[str, ...]:
        """Operators that a block or site may have."""
        return self.encoding.ops

    @property
    def left(self) -> tuple[float, ...]:
        """Shares of tokens that may be kept, ascending; of which tokens, the encoding says."""
        return self.encoding.left

    def blocks(self, model: ModelSpec) -> tuple[int, ...]:
        """Blocks of `model` that may reduce; SpaceError if there are none."""
        last = self.last if self.last >= 0 else model.blocks + self.last
        allowed = tuple(range(self.first, min(last, model.blocks - 1) + 1, self.stride))
        if not allowed:
            raise SpaceError(
                f"search space {self.name!r} allows blocks {self.first} to {last}, "
                f"of which {model.name} with {model.blocks} blocks has none"
            )
        return allowed

    def fitting(self, model: ModelSpec, *, scored: bool, prefix_read: bool) -> "SearchSpace":
        """Return the part that `model` can follow.

        Without a class token, mean attention takes the place of scores that need one; a head that
        reads patch tokens needs the whole last block.
        """
        whole = tuple(kind for kind in self.last_block if prefix_read or kind == "full")
        score = dict.fromkeys(
            score if scored or score not in CLASS_SCORES else "mean_attention"
            for score in self.score
        )
        return replace(self, score=tuple(score), last_block=whole or ("full",))

    def dimensions(self, model: ModelSpec) -> dict[str, tuple[Choice, ...]]:
        """Every choice that a sampler has to make, with what may be chosen.

        Of fixed length, whatever is chosen. Numbers ascend, so that a neighbour is the next one.
        What leaves no choice is no dimension.
        """
        return {name: values for name, values in _axes_of(self, model).items() if len(values) > 1}

    def build(self, parameters: Mapping[str, Any], model: ModelSpec) -> Policy:
        """Return the schedule of a value for every dimension; any values are valid."""
        chosen: dict[str, Any] = {
            name: parameters[name] if len(values) > 1 else values[0]
            for name, values in _axes_of(self, model).items()
        }
        return Policy(
            model,
            self.encoding.steps(chosen, self.context(model), self._step_builder(chosen)),
            proportional_attention=chosen["proportional_attention"],
            last_block=chosen["last_block"],
        )

    def suggest(self, trial: SuggestsParameters, model: ModelSpec) -> Policy:
        """Have an Optuna trial choose a schedule: of numbers their index, which has an order."""
        chosen = {
            name: suggest_value(trial, name, values)
            for name, values in self.dimensions(model).items()
        }
        return self.build(chosen, model)

    def nearest(self, policy: Policy, model: ModelSpec) -> dict[str, Choice]:
        """Return the parameters of the schedule that comes nearest to `policy`.

        Its steps move to the nearest allowed blocks, by ratio if it was made for another geometry,
        their counts to the nearest allowed. A schedule of this space is returned exactly.
        """
        context = self.context(model)
        chosen = self._options(policy)
        wanted = block_reductions(policy, model, context.blocks)
        chosen |= self.encoding.nearest(wanted, context, self._step_builder(chosen))
        return {name: chosen[name] for name in self.dimensions(model)}

    def size(self, model: ModelSpec) -> int:
        """Return the number of schedules that can be asked for.

        Choices that do not matter are not counted: the match without a pool, for example, or the
        share of a slot that asks for more than an earlier one. Shares that round to the same count
        are counted, so short models have fewer schedules than this.
        """
        ops, blocks = set(self.ops) - {"keep"}, len(self.blocks(model))
        return sum(
            self._options_with(used)
            * sum(
                (-1) ** (len(used) - len(some)) * self.encoding.count_schedules(some, blocks)
                for some in _subsets(used)
            )
            for used in _subsets(ops)
        )

    def every(self, model: ModelSpec) -> Iterator[Policy]:
        """Yield every distinct schedule once: for small spaces."""
        axes, seen = self.dimensions(model), set[str]()
        for values in product(*axes.values()):
            policy = self.build(dict(zip(axes, values, strict=True)), model)
            if policy.schedule_hash not in seen:
                seen.add(policy.schedule_hash)
                yield policy

    def context(self, model: ModelSpec) -> EncodingContext:
        """Return what an encoding must know of the model."""
        return EncodingContext(self.blocks(model), model.blocks, model.patch_tokens)

    def _step_builder(self, chosen: Choices) -> StepBuilder:
        rest = _allowed_rest(chosen["score"], chosen["rest"])
        return StepBuilder(chosen["score"], chosen["match"], rest, self.by)

    def _options(self, policy: Policy) -> dict[str, Any]:
        """Return the choices that hold for a whole schedule, as near to `policy` as allowed."""
        score = _first((step.score for step in policy.steps), self.score)
        pooled = {step.block for step in policy.steps if isinstance(step, Pool)}
        prunes = [s for s in policy.steps if isinstance(s, Prune) and s.block not in pooled]
        possible = tuple(_allowed_rest(score, rest) for rest in self.rest)
        rest = _first((prune.rest for prune in prunes), possible)
        return {
            "score": score,
            "match": _first((s.match for s in policy.steps if isinstance(s, Pool)), self.match),
            "rest": self.rest[possible.index(rest)],
            "proportional_attention": _first(
                [policy.proportional_attention], self.proportional_attention
            ),
            "last_block": _first([policy.last_block], self.last_block),
        }

    def _options_with(self, ops: Collection[str]) -> int:
        """How many choices for a whole schedule differ where its steps are of kinds `ops`."""
        options = product(self.score, self.match, self.rest, self.proportional_attention)
        return len(self.last_block) * len({_relevant_options(ops, values) for values in options})


@lru_cache(maxsize=64)  # samplers build thousands of schedules of a space
def _axes_of(space: SearchSpace, model: ModelSpec) -> Mapping[str, tuple[Choice, ...]]:
    """All choices, those with a single value among them."""
    return {
        **space.encoding.dimensions(space.context(model)),
        "score": space.score,
        "match": space.match if {"pool", "prune_pool"} & {*space.ops} else space.match[:1],
        "rest": space.rest if "prune" in space.ops else space.rest[:1],
        "proportional_attention": space.proportional_attention,
        "last_block": space.last_block,
    }


def _first(values: Iterable[object], allowed: Sequence[_T]) -> _T:
    """Return the first of `values` that is allowed; if there is none, the first allowed."""
    return next((one for value in values for one in allowed if one == value), allowed[0])


def _allowed_rest(score: Score, rest: Rest) -> Rest:
    """Return what becomes of the discarded: random scores are no weights to fuse them by."""
    return "drop" if (score, rest) == ("random", "fuse") else rest


def _relevant_options(
    ops: Collection[str], options: tuple[Score, Match, Rest, bool]
) -> tuple[object, ...]:
    """Return the options, None for those that do not matter to steps of the kinds `ops`."""
    score, match, rest, proportional = options
    pools = not {"pool", "prune_pool"}.isdisjoint(ops)
    prunes = not {"prune", "prune_pool"}.isdisjoint(ops)
    discarded = _allowed_rest(score, rest) if "prune" in ops else None
    return (
        score if prunes or (pools and match == "ranked") else None,
        match if pools else None,
        discarded,
        proportional and (pools or discarded == "mean"),
    )


def _subsets(of: Collection[str]) -> Iterator[tuple[str, ...]]:
    for count in range(len(of) + 1):
        yield from combinations(sorted(of), count)
