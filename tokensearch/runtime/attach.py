"""Make a model follow a policy, in place, and give it back exactly as it was."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from tokensearch.errors import ModelError, PolicyError, TokensearchWarning
from tokensearch.policy import Policy, Pool, Prune, is_file, load, preset
from tokensearch.runtime.host import (
    Host,
    as_host,
    describe,
    has_class_token,
    reads_prefix_only,
    weights_digest,
)
from tokensearch.runtime.opened import OpenedBlock
from tokensearch.runtime.proof import prove

Model = TypeVar("Model", bound=nn.Module)
_MARK = "_tokensearch"  # where a model keeps what was attached to it


@dataclass(frozen=True)
class _Attachment:
    """What `remove` needs to know."""

    policy: Policy
    opened: tuple[OpenedBlock, ...]
    before: tuple[dict[str, Any], ...]  # a `forward` that a block had on its instance already


def apply(model: Model, policy: Policy | str | Path) -> Model:
    """Make `model` follow `policy` from now on, in place, and return it.

    `policy` is a Policy, the path of a policy file, or the name of a preset. A policy that is
    already applied is replaced. Blocks that the policy leaves alone are not touched.

    PolicyError if the policy was made for another geometry, ModelError if the model's blocks cannot
    be opened. A policy found on other weights is applied with a warning: fine-tuning is normal.
    """
    chosen = resolve(model, policy)
    check(model, chosen)
    remove(model)
    _attach(model, chosen, ranges=False)
    return model


def remove(model: Model) -> Model:
    """Undo `apply`: the model runs its own code again. Does nothing to a model without a policy."""
    attachment: _Attachment | None = model.__dict__.pop(_MARK, None)
    if attachment is not None:
        for opened, before in zip(attachment.opened, attachment.before, strict=True):
            del opened.block.__dict__["forward"]
            opened.block.__dict__.update(before)
    return model


@contextmanager
def applied(model: Model, policy: Policy | str | Path) -> Iterator[Model]:
    """Follow `policy` inside the `with`; afterwards the model is as it was, policy included."""
    before = policy_of(model)
    try:
        yield apply(model, policy)
    finally:
        remove(model)
        if before is not None:
            _attach(model, before, ranges=False)


@contextmanager
def ranged(model: Model) -> Iterator[Model]:
    """Inside the `with`, every block writes profiler ranges (`records.range_name`) as it runs.

    All blocks are opened for that, those of an un-reduced model too. Ranges cost time: timings
    taken inside are for shares, not for headlines.
    """
    before = policy_of(model)
    remove(model)
    try:
        _attach(model, before or Policy(describe(model)), ranges=True)
        yield model
    finally:
        remove(model)
        if before is not None:
            _attach(model, before, ranges=False)


def policy_of(model: nn.Module) -> Policy | None:
    """Return the policy that `model` follows, if any."""
    attachment: _Attachment | None = model.__dict__.get(_MARK)
    return attachment.policy if attachment else None


def check(model: nn.Module, policy: Policy) -> None:
    """Refuse a policy that does not fit; warn about one found on other weights."""
    found, wanted = describe(model), policy.model
    for field in ("blocks", "patch_tokens", "prefix_tokens", "width"):
        has, wants = getattr(found, field), getattr(wanted, field)
        if has != wants:
            raise PolicyError(
                f"the policy was made for {wanted.name} with {field} {wants}; "
                f"{found.name} has {field} {has}"
            )
    if policy.last_block == "prefix_only" and not reads_prefix_only(model):
        raise ModelError(
            f"last_block is prefix_only, but the head of {found.name} reads patch tokens"
        )
    scored = any(
        isinstance(step, Prune) and step.score == "class_attention" for step in policy.steps
    )
    if scored and not has_class_token(model):
        raise ModelError(
            f"the policy prunes by class attention, but {found.name} has no class token"
        )
    if wanted.weights is not None and wanted.weights != weights_digest(model):
        warnings.warn(
            f"the policy was found on other weights of {wanted.name} than this model has, or in "
            f"another number type; its evidence does not hold here",
            TokensearchWarning,
            stacklevel=3,
        )


def resolve(model: nn.Module, policy: Policy | str | Path) -> Policy:
    """Return the policy that a path or a preset's name stands for; PolicyError if neither."""
    if isinstance(policy, Policy):
        return policy
    return load(policy) if is_file(policy) else preset(str(policy), describe(model))


def _attach(model: nn.Module, policy: Policy, *, ranges: bool) -> None:
    host = as_host(model)
    opened = tuple(block for block in _plan(host, policy, ranges=ranges))
    for block in opened:
        prove(block.block, place=block.place, prefix=block.prefix, width=policy.model.width)
    before = tuple(
        {name: one.block.__dict__[name] for name in ("forward",) if name in one.block.__dict__}
        for one in opened
    )
    for one in opened:
        # On the instance: the host's class, its parameters and its hooks stay what they are.
        one.block.__dict__["forward"] = one.forward
    model.__dict__[_MARK] = _Attachment(policy, opened, before)


def _plan(host: Host, policy: Policy, *, ranges: bool) -> Iterator[OpenedBlock]:
    """Open the blocks that do something: reduce, or hand token sizes on to one that needs them."""
    last = len(host.blocks) - 1
    pools = [step.block for step in policy.steps if isinstance(step, Pool)]
    first_sized = pools[0] + 1 if pools else last + 1  # first block that tokens with sizes enter
    wanted_until = last if policy.proportional_attention else max(pools, default=-1)
    left = policy.model.patch_tokens
    for place, block in enumerate(host.blocks):
        steps = policy.steps_of(place)
        prefix_only = place == last and policy.last_block == "prefix_only"
        sized = first_sized <= place <= wanted_until
        if ranges or steps or prefix_only or sized:
            yield OpenedBlock(
                block,
                place,
                prefix=host.num_prefix_tokens,
                enters=left,
                steps=steps,
                proportional=policy.proportional_attention,
                prefix_only=prefix_only,
                hands_on_size=first_sized <= place + 1 <= wanted_until,
                ranges=ranges,
            )
        left = steps[-1].keep if steps else left
