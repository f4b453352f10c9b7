"""What makes a list of steps a schedule for a model."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import inf, isfinite, isqrt

from tokensearch.errors import PolicyError
from tokensearch.policy.model_spec import ModelSpec
from tokensearch.policy.steps import (
    ENERGY_MATCHES,
    KEY_MATCHES,
    LEARNED,
    MATCHES,
    METRICS,
    PLACES,
    RESTS,
    SCORES,
    VALUES,
    Merger,
    Pool,
    Prune,
    PruneOrPool,
    Shape,
    Step,
    Threshold,
    is_own,
    roles_of,
    tensors_of,
)
from tokensearch.policy.tensors import RawTensor, Tensors


def check_steps(model: ModelSpec, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return the steps that change something; PolicyError if any cannot be carried out."""
    _check_order(model, steps)
    left = model.patch_tokens
    changing: list[Step] = []
    for step in steps:
        _check_choice(step)
        least, most = kept_range(step, left)
        if type(step.keep) is not int or not least <= step.keep <= most:
            raise PolicyError(
                f"{step.op} at block {step.block} keeps {step.keep!r:.60} of the {left} patch "
                f"tokens left; it may keep an integer from {least} to {most}"
            )
        if step.keep < left or _acts_on_all(step):
            _check_grid(step, changing, left)
            changing.append(step)
        left = step.keep
    return tuple(changing)


def _acts_on_all(step: Step) -> bool:
    """Whether a step changes tokens even where it leaves as many as before.

    EViT's fused token then takes the place of the worst, and a merger's means that of all. A
    threshold may remove tokens of single images.
    """
    return isinstance(step, Merger | Threshold) or (isinstance(step, Prune) and step.rest == "fuse")


def kept_range(step: Step, patch_tokens: int) -> tuple[int, int]:
    """Fewest and most patch tokens that `step` can leave of `patch_tokens`.

    The most is all of them, which means that nothing is done.
    """
    match step:
        case Merger() | Threshold() | Prune(rest="drop"):
            return 1, patch_tokens
        case Pool(match="ranked" | "kmeans" | "kmedoids" | "agglomerative"):
            return 1, patch_tokens
        case Prune():
            return min(2, patch_tokens), patch_tokens  # one token more for the discarded
        case Pool(match="grid"):
            return max(1, patch_tokens // 4), patch_tokens
        case Pool() | PruneOrPool():
            return patch_tokens - patch_tokens // 2, patch_tokens  # merging takes a partner each


def _check_order(model: ModelSpec, steps: tuple[Step, ...]) -> None:
    for step in steps:
        if type(step.block) is not int or not 0 <= step.block < model.blocks:
            raise PolicyError(
                f"step at block {step.block!r:.60}: {model.name} has blocks 0 to {model.blocks - 1}"
            )
    for first, second in pairwise(steps):
        if second.block < first.block:
            raise PolicyError(
                f"step at block {second.block} follows one at block {first.block}; "
                f"steps must be in order of block"
            )
        # The order that DiffRate (arXiv:2305.17997) found better, and the only one it uses.
        if first.block == second.block and (first.op, second.op) != ("prune", "pool"):
            raise PolicyError(
                f"block {first.block} has {first.op}, then {second.op}; "
                f"a block may hold one prune, then one pool"
            )
        if first.block == second.block and first.at != "between":
            raise PolicyError(
                f"block {first.block} has a step at its end and another one; a step at the end of "
                f"a block is its only one"
            )
        if first.block == second.block and isinstance(first, Prune) and first.rest != "drop":
            raise PolicyError(
                f"block {first.block} has a prune that adds a token ({first.rest}), then a pool; "
                f"before a pool the discarded can only be dropped"
            )


def _check_choice(step: Step) -> None:
    for verb, choice, known in _choices(step):
        if choice not in known:
            raise PolicyError(
                f"{step.op} at block {step.block} {verb} {choice!r:.60}; known are "
                f"{', '.join(known)}"
            )
    if isinstance(step, Pool):
        _check_pool(step)
    if isinstance(step, Prune) and step.rest == "fuse" and _is_no_weight(step.score):
        raise PolicyError(
            f"prune at block {step.block} fuses the discarded by {step.score} scores, which are no "
            f"weights; with them the discarded can be dropped or averaged"
        )
    learns = bool(roles_of(step))
    if learns != (step.tensors is not None):
        has = "has learned something but names no tensors" if learns else "names tensors in vain"
        raise PolicyError(
            f"{step.op} at block {step.block} {has}; a step names what it has learned"
        )
    for what, value, least in _numbers(step):
        if not _is_number(value) or value <= least:
            above = "" if least == -inf else f" above {least:g}"
            raise PolicyError(
                f"{step.op} at block {step.block} has the {what} {value!r:.60}; it must be a "
                f"number{above}"
            )


def _check_pool(step: Pool) -> None:
    if step.match != "ranked" and step.score is not None:
        raise PolicyError(
            f"pool at block {step.block} has a score; only the match 'ranked' goes by one"
        )
    if step.match not in KEY_MATCHES and step.metric != "keys":
        raise PolicyError(
            f"pool at block {step.block} compares by {step.metric}; only the matches "
            f"{', '.join(KEY_MATCHES)} compare"
        )
    if step.match not in ENERGY_MATCHES and step.margin is not None:
        raise PolicyError(
            f"pool at block {step.block} has a margin; only the matches "
            f"{' and '.join(sorted(ENERGY_MATCHES))} go by one"
        )


def _numbers(step: Step) -> Iterator[tuple[str, float, float]]:
    """What a step says in numbers, each with what it must be above."""
    match step:
        case Pool(margin=margin) if margin is not None:
            yield "margin", margin, -inf
        case PruneOrPool(threshold=threshold) | Threshold(threshold=threshold):
            yield "threshold", threshold, -inf
        case Merger(scale=scale):
            yield "scale", scale, 0.0
        case _:
            pass


def _is_number(value: object) -> bool:
    return type(value) is float and isfinite(value)


def _choices(step: Step) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """What a step names, with the names that may stand there."""
    match step:
        case Prune(score=score, rest=rest, at=at):
            yield "scores by", score, (*SCORES, LEARNED, *_own(score))
            yield "treats the discarded as", rest, RESTS
            yield "acts at", at, PLACES
        case Pool(match=match_, score=score, metric=metric):
            yield "matches by", match_, MATCHES
            yield "compares by", metric, METRICS
            if score is not None:
                yield "scores by", score, (*SCORES, *_own(score))
        case PruneOrPool(score=score):  # the threshold is one for shares that sum to 1
            yield "scores by", score, ("class_attention_value",)
        case Threshold(score=score, at=at):
            yield "scores by", score, SCORES
            yield "acts at", at, PLACES
        case Merger(values=values, at=at):
            yield "averages values that are", values, VALUES
            yield "acts at", at, PLACES


def _is_no_weight(score: str) -> bool:
    """Whether scores order tokens, but are no shares of them."""
    return score in {"random", LEARNED} or is_own(score)


def _own(score: str) -> tuple[str, ...]:
    """Return a score of the user's own, which may stand beside those that are known."""
    return (score,) if is_own(score) else ()


def check_counts(steps: tuple[Step, ...], counts: str) -> None:
    """Hold the steps against what the policy says of its counts."""
    if counts not in ("static", "per_image"):
        raise PolicyError(f"counts is {counts!r:.60}; it may be static or per_image")
    for step in steps:
        if isinstance(step, Threshold) != (counts == "per_image"):
            other = "only of thresholds" if counts == "per_image" else "of no thresholds"
            raise PolicyError(
                f"{step.op} at block {step.block} stands in a policy whose counts are {counts}; "
                f"such a policy is made {other}"
            )


def check_tensors(model: ModelSpec, steps: tuple[Step, ...], tensors: Tensors | None) -> None:
    """Refuse tensors that are not exactly those that the steps name, in their shapes."""
    wanted = _wanted_tensors(model, steps)
    if tensors is None:
        if wanted:
            raise PolicyError(
                f"the steps name the tensor {min(wanted)!r:.60}, but the policy has no tensors; "
                f"give it some with tensors=Tensors.pack(...)"
            )
        return
    if tensors.data is None:  # out of a record: nobody can compute with them
        return
    held = tensors.by_name
    if held.keys() != wanted.keys():
        surplus = sorted(held.keys() - wanted.keys())
        name = surplus[0] if surplus else min(wanted.keys() - held.keys())
        raise PolicyError(
            f"the tensor {name!r:.60} is "
            f"{'named by no step that changes anything' if surplus else 'missing'}; the tensors of "
            f"a policy are exactly those that such steps name"
        )
    for name, shape in wanted.items():
        if not _fits(held[name].shape, shape):
            raise PolicyError(
                f"the tensor {name!r:.60} has the shape {held[name].shape}; it must have {shape}"
            )
    for step in steps:
        _check_map(step, held)


def _wanted_tensors(model: ModelSpec, steps: tuple[Step, ...]) -> dict[str, Shape]:
    """Names and shapes of all tensors; steps that share one must want it alike."""
    wanted: dict[str, Shape] = {}
    for step in steps:
        for name, shape in tensors_of(step, model.width).items():
            if wanted.setdefault(name, shape) != shape:
                raise PolicyError(
                    f"{step.op} at block {step.block} names the tensor {name!r:.60} in the shape "
                    f"{shape}, an earlier step in {wanted[name]}; give each its own tensors"
                )
    return wanted


def _check_map(step: Step, held: Mapping[str, RawTensor]) -> None:
    """A learned metric has a bias for each of its features."""
    if isinstance(step, Pool) and step.metric == LEARNED:
        weight, bias = (held[roles_of(step)[role]].shape for role in ("weight", "bias"))
        if weight[0] != bias[0]:
            raise PolicyError(
                f"pool at block {step.block} has learned a metric of {weight[0]} features with a "
                f"bias of {bias[0]}; there must be as many of both"
            )


def _fits(shape: tuple[int, ...], wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(
        length in {size, None} for size, length in zip(shape, wanted, strict=True)
    )


def _check_grid(step: Step, before: list[Step], left: int) -> None:
    """A grid can be pooled 2 x 2 only while it is one: square, even, and whole."""
    if not isinstance(step, Pool) or step.match != "grid":
        return
    whole = all(isinstance(earlier, Pool) and earlier.match == "grid" for earlier in before)
    side = isqrt(left)
    if not whole or side * side != left or side % 2 or step.keep * 4 != left:
        raise PolicyError(
            f"pool at block {step.block} merges a grid 2 x 2, which takes a square grid of even "
            f"side that no other step has touched and leaves a quarter; {left} patch tokens are "
            f"left and {step.keep} are to be kept"
        )
