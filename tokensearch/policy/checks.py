"""What makes a list of steps a schedule for a model."""

from collections.abc import Iterator
from itertools import pairwise
from math import isfinite, isqrt

from tokensearch.errors import PolicyError
from tokensearch.policy.model_spec import ModelSpec
from tokensearch.policy.steps import MATCHES, RESTS, SCORES, Pool, Prune, PruneOrPool, Step


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
        if step.keep < left or _fuses(step):
            _check_grid(step, changing, left)
            changing.append(step)
        left = step.keep
    return tuple(changing)


def _fuses(step: Step) -> bool:
    """With as many tokens as before, the worst still becomes the fused token, as in EViT."""
    return isinstance(step, Prune) and step.rest == "fuse"


def kept_range(step: Step, patch_tokens: int) -> tuple[int, int]:
    """Fewest and most patch tokens that `step` can leave of `patch_tokens`.

    The most is all of them, which means that nothing is done.
    """
    match step:
        case Prune(rest="drop") | Pool(match="ranked" | "kmeans" | "kmedoids" | "agglomerative"):
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
    if isinstance(step, Pool) and step.match != "ranked" and step.score is not None:
        raise PolicyError(
            f"pool at block {step.block} has a score; only the match 'ranked' goes by one"
        )
    if isinstance(step, Prune) and (step.score, step.rest) == ("random", "fuse"):
        raise PolicyError(
            f"prune at block {step.block} fuses the discarded by random scores, which are no "
            f"weights; with them the discarded can be dropped or averaged"
        )
    if isinstance(step, PruneOrPool) and not _is_number(step.threshold):
        raise PolicyError(
            f"prune_or_pool at block {step.block} has the threshold {step.threshold!r:.60}; "
            f"it must be a number"
        )


def _is_number(value: object) -> bool:
    return type(value) is float and isfinite(value)


def _choices(step: Step) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """What a step names, with the names that may stand there."""
    match step:
        case Prune(score=score, rest=rest):
            yield "scores by", score, SCORES
            yield "treats the discarded as", rest, RESTS
        case Pool(match=match_, score=score):
            yield "matches by", match_, MATCHES
            if score is not None:
                yield "scores by", score, SCORES
        case PruneOrPool(score=score):  # the threshold is one for shares that sum to 1
            yield "scores by", score, ("class_attention_value",)


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
