"""What makes a list of steps a schedule for a model."""

from itertools import pairwise

from tokensearch.errors import PolicyError
from tokensearch.policy.model_spec import ModelSpec
from tokensearch.policy.steps import MATCHES, SCORES, Pool, Prune, Step


def checked(model: ModelSpec, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return the steps that change something; PolicyError if any cannot be carried out."""
    _check_order(model, steps)
    left, changing = model.patch_tokens, []
    for step in steps:
        _check_choice(step)
        least = least_kept(step, left)
        if type(step.keep) is not int or not least <= step.keep <= left:
            raise PolicyError(
                f"{step.op} at block {step.block} keeps {step.keep!r} of the {left} patch tokens "
                f"left; it may keep {least} to {left}"
            )
        if step.keep < left:
            changing.append(step)
        left = step.keep
    return tuple(changing)


def least_kept(step: Step, patch_tokens: int) -> int:
    """Fewest patch tokens that `step` can leave of `patch_tokens`."""
    match step:
        case Prune():
            return 1
        case Pool():
            return patch_tokens - patch_tokens // 2  # every merged token needs a partner


def _check_order(model: ModelSpec, steps: tuple[Step, ...]) -> None:
    for step in steps:
        if type(step.block) is not int or not 0 <= step.block < model.blocks:
            raise PolicyError(
                f"step at block {step.block!r}: {model.name} has blocks 0 to {model.blocks - 1}"
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


def _check_choice(step: Step) -> None:
    match step:
        case Prune(score=score) if score not in SCORES:
            verb, choice, known = "scores", str(score), SCORES
        case Pool(match=match_) if match_ not in MATCHES:
            verb, choice, known = "matches", str(match_), MATCHES
        case _:
            return
    raise PolicyError(
        f"{step.op} at block {step.block} {verb} by {choice!r}; known are {', '.join(known)}"
    )
