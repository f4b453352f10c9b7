"""Make a model follow a policy, in place, and give it back exactly as it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tokensearch.errors import ModelError, PolicyError
from tokensearch.ops import Tokens
from tokensearch.policy import Policy
from tokensearch.runtime import pooled_head
from tokensearch.runtime.compatibility import check_policy, resolve_policy, warn_of_average
from tokensearch.runtime.equivalence import check_equivalence
from tokensearch.runtime.head_reading import list_layouts, read_facts, reading_of
from tokensearch.runtime.host import anchor_of, as_host, describe
from tokensearch.runtime.learned import make_buffers, read_tensors
from tokensearch.runtime.plan import Extras, make_plan
from tokensearch.runtime.profiler_ranges import block_ranges, traced_range
from tokensearch.runtime.reduce import ChooseThreshold, MaskLearner
from tokensearch.runtime.reduced_block import Around, ReducedBlock
from tokensearch.runtime.token_state import read_state

Model = TypeVar("Model", bound=nn.Module)
_Read = TypeVar("_Read")
_MARK = "_tokensearch"  # where a model keeps what was attached to it


@dataclass(frozen=True)
class _Attachment:
    """What was done to a model, and what `remove` needs to know."""

    policy: Policy
    extras: Extras
    opened: tuple[ReducedBlock, ...]
    # What stood on instances that we set: module, name, whether it was there, and what it was.
    before: tuple[tuple[nn.Module, str, bool, Any], ...]
    buffers: tuple[tuple[nn.Module, str], ...]  # that blocks were given, with their names


def apply(model: Model, policy: Policy | str | Path, *, dense: bool = False) -> Model:
    """Make `model` follow `policy` from now on, in place, and return it.

    `policy` is a Policy, the path of a policy file, or the name of a preset. A policy that is
    already applied is replaced. Blocks that the policy leaves alone are not touched.

    With `dense`, every block from the first step on hands out features (B, P + G, C) of all G
    patches: a merged patch has those of its token, a discarded one those it had when it went. Then
    `forward_features` and `forward_intermediates` have the shape that they have without a policy.

    PolicyError if the policy was made for another geometry, ModelError if the model's blocks cannot
    be opened. A policy found on other weights is applied with a warning: fine-tuning is normal.

    Of a model that is wrapped (`torch.compile`, DDP, PEFT, averages of weights), the one inside
    follows the policy, so that it does not matter which of the two other functions are given.
    """
    chosen = resolve_policy(model, policy)
    check_policy(model, chosen)
    if dense and chosen.last_block == "prefix_only":
        raise ModelError("last_block is prefix_only, which leaves no patches for dense features")
    if not dense:
        warn_of_average(model, chosen)
    before = _attachment(model)
    remove(model)
    try:
        _attach(model, chosen, Extras(dense=dense))
    except (ModelError, PolicyError):
        _attach_again(model, before)
        raise
    return model


def remove(model: Model) -> Model:
    """Undo `apply`: the model runs its own code again. Does nothing to a model without a policy."""
    attachment: _Attachment | None = anchor_of(model).__dict__.pop(_MARK, None)
    if attachment is not None:
        for module, name, was_there, value in attachment.before:
            if was_there:
                module.__dict__[name] = value
            else:
                del module.__dict__[name]
        for module, name in attachment.buffers:
            delattr(module, name)
    return model


@contextmanager
def applied(model: Model, policy: Policy | str | Path, *, dense: bool = False) -> Iterator[Model]:
    """Follow `policy` inside the `with`; afterwards the model is as it was, policy included."""
    with _as_before(model):
        yield apply(model, policy, dense=dense)


@contextmanager
def phase_ranges(
    model: Model, around: Around = traced_range, *, floor: bool = False
) -> Iterator[Model]:
    """Inside the `with`, every phase of every block runs inside a range of its own.

    `around(block, phase)` makes the range; by default it is the PyTorch profiler's, named by
    `records.profile.range_name`. Blocks without steps run their own code, between hooks.

    With `floor`, steps cut the last tokens off instead of scoring, matching and merging: the same
    counts at no price, in which no operator can be beaten.
    """
    policy = policy_of(model) or Policy(describe(model))
    before = _attachment(model)
    extras = replace(before.extras if before else Extras(), around=around, floor=floor)
    with _as_before(model):
        remove(model)
        _attach(model, policy, extras)
        with block_ranges(as_host(model).blocks, around):
            yield model


@contextmanager
def choosing_thresholds(model: Model, choose: ChooseThreshold) -> Iterator[Model]:
    """Inside the `with`, `choose` says the thresholds of the policy that `model` follows.

    It is called at every threshold of every pass, with the step and the scores of all tokens that
    are there, of all images.
    """
    with _with_extras(model, choose=choose):
        yield model


@contextmanager
def learning_masks(model: Model, learner: MaskLearner) -> Iterator[Model]:
    """Inside the `with`, `learner` says what the thresholds of the policy of `model` keep.

    Other tokens are masked and not dropped, which computes the same but for rounding, and has
    derivatives by what the learner chose them by.
    """
    with _with_extras(model, learner=learner):
        yield model


@contextmanager
def _with_extras(model: nn.Module, **changes: Any) -> Iterator[None]:
    """Inside the `with`, the policy with thresholds that `model` follows has other extras."""
    policy, before = policy_of(model), _attachment(model)
    if policy is None or before is None:
        raise ModelError(f"a {type(model).__name__} follows no policy that could have thresholds")
    with _as_before(model):
        remove(model)
        _attach(model, policy, replace(before.extras, **changes))
        yield


def trace(model: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """Run `images` through, and say after each block which token holds each patch.

    images  (B, 3, rows, columns)
    ->      one (B, G) per block: the patch token, from 0, that holds each of the G patches; -1
            where it was discarded

    The model follows a policy; ModelError if it does not. Other threads must not use it meanwhile.
    """
    return tuple(_of_sources(tokens) for tokens in _follow(model, images))


def count_tokens(model: nn.Module, images: Tensor) -> Tensor:
    """Run `images` through, and count the patch tokens that each block hands on for each of them.

    images  (B, 3, rows, columns)
    ->      (B, blocks)

    As `trace`: the model follows a policy, and no other thread uses it meanwhile.
    """
    host, counts = as_host(model), list[Tensor]()
    for tokens in _follow(model, images):
        size = torch.ones_like(tokens.x[..., :1]) if tokens.size is None else tokens.size
        counts.append((size[:, host.num_prefix_tokens :, 0] > 0).sum(dim=1))
    return torch.stack(counts, dim=1)


def follow_blocks(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Run `images` through, and return what each block hands on, (B, tokens, width)."""
    return _collect(model, images, lambda tokens: tokens)


def _collect(model: nn.Module, images: Tensor, read: Callable[[Tensor], _Read]) -> list[_Read]:
    """Run `images` through, and return what `read` makes of what each block hands on."""
    followed = list[_Read]()
    hooks = [
        block.register_forward_hook(lambda _, __, out: followed.append(read(out)))
        for block in as_host(model).blocks
    ]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return followed


def _follow(model: nn.Module, images: Tensor) -> list[Tokens]:
    """Run `images` through, and return the tokens that each block hands on."""
    policy = policy_of(model)
    if policy is None:
        raise ModelError(f"a {type(model).__name__} follows no policy that could be traced")
    before = _attachment(model)
    with _as_before(model):
        remove(model)
        choose = before.extras.choose if before else None
        _attach(model, policy, Extras(sources=True, choose=choose))
        return _collect(model, images, _tokens)


def policy_of(model: nn.Module) -> Policy | None:
    """Return the policy that `model` follows, if any."""
    attachment = _attachment(model)
    return attachment.policy if attachment else None


def get_reduced_blocks(model: nn.Module) -> tuple[ReducedBlock, ...]:
    """Return the blocks that the policy of `model` opened, in order; none without a policy."""
    attachment = _attachment(model)
    return attachment.opened if attachment else ()


def _tokens(out: Tensor) -> Tokens:
    tokens = read_state(out)
    if tokens is None:
        raise ModelError("tokens cannot be traced: a hook on a block makes new features")
    return tokens


def _of_sources(tokens: Tokens) -> Tensor:
    assert tokens.source is not None  # which a trace asks for
    return tokens.source


@contextmanager
def _as_before(model: nn.Module) -> Iterator[None]:
    """Whatever is attached inside, attach afterwards what was attached before."""
    before = _attachment(model)
    try:
        yield
    finally:
        remove(model)
        _attach_again(model, before)


def _attach_again(model: nn.Module, before: _Attachment | None) -> None:
    if before is not None:
        _attach(model, before.policy, before.extras)


def _attachment(model: nn.Module) -> _Attachment | None:
    attachment: _Attachment | None = anchor_of(model).__dict__.get(_MARK)
    return attachment


def _attach(model: nn.Module, policy: Policy, extras: Extras) -> None:
    host = as_host(model)
    model, tensors = host.model, read_tensors(policy)
    reading = "plain" if extras.dense or extras.floor else reading_of(host, policy)
    extras = replace(extras, grid=reading == "grid")
    opened = list(make_plan(host, policy, extras, weighs=reading == "by_size"))
    for index, block in enumerate(opened):
        bypassed = check_equivalence(block, width=policy.model.width, rotates=host.rotates)
        opened[index] = block.watching(bypassed)
    if opened and host.tower is None:
        last = opened[-1]
        opened[0] = replace(opened[0], facts=read_facts(model, last.block, last.index))
    settings: list[tuple[nn.Module, str, Callable[..., Any]]] = [
        (one.block, "forward", one.forward) for one in opened
    ]
    settings += pooled_head.list_overrides(model) if reading == "by_size" else ()
    settings += () if extras.dense else list_layouts(model)
    # Before anything is set: a device may have no room for them.
    learned = [
        (one.block, name, buffer)
        for one in opened
        for name, buffer in make_buffers(one.block, policy.steps_of(one.index), tensors).items()
    ]
    before = tuple(
        (module, name, name in module.__dict__, module.__dict__.get(name))
        for module, name, _ in settings
    )
    for module, name, value in settings:
        # On the instance: the host's class, its parameters and its hooks stay what they are.
        module.__dict__[name] = value
    for module, name, buffer in learned:
        module.register_buffer(name, buffer, persistent=False)
    buffers = tuple((module, name) for module, name, _ in learned)
    anchor_of(model).__dict__[_MARK] = _Attachment(policy, extras, tuple(opened), before, buffers)
