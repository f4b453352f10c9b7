"""One block that follows a policy.

Everything is decided when it is attached: a pass only runs tensors through.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from tokensearch.errors import ModelError
from tokensearch.ops import Tokens, mask_bias, size_bias
from tokensearch.records.profile import Phase
from tokensearch.runtime.adapters import BlockFamily
from tokensearch.runtime.head_reading import ModelFacts
from tokensearch.runtime.reduce import Site
from tokensearch.runtime.token_flow import Entry, Output, Reduction

# Opens a range around one phase of one block: a profiler's, or one that notes the time.
Around = Callable[[int, Phase], AbstractContextManager[object]]


@dataclass(frozen=True, eq=False)
class ReducedBlock:
    """A host block, and what it does between its attention and its MLP, and at its end."""

    block: nn.Module
    family: BlockFamily
    index: int  # which block of the model, from 0
    prefix: int
    patch_tokens: int  # that the policy promises on entry
    entry: Entry
    reduction: Reduction
    ending: Reduction  # what happens at the end of the block
    output: Output
    proportional: bool  # add log(size) to the attention logits
    varies: bool  # images have other counts, at most as many; sizes of 0 fill them up
    prefix_only: bool  # compute prefix tokens alone: the last block
    around: Around | None = None  # what to put around every phase
    hooks_of_ours: bool = False  # ranges and traces hang on modules: hooks are not looked at
    watched: tuple[str, ...] = ()  # modules whose hooks would not be honoured
    idle: tuple[str, ...] = ()  # ... nor of these, which the host only calls when not fused
    # The code of modules that the opened block does in their place, "" for the block itself.
    spelt_out: tuple[tuple[str, object], ...] = ()
    facts: ModelFacts | None = None  # of the first block that is opened: what the policy relies on

    def watching(self, bypassed: Iterable[str]) -> "ReducedBlock":
        """Return the block, looking at hooks of the modules that it never calls.

        ModelError if one has hooks already. Where prefix tokens alone are computed, no module sees
        what it would see without a policy, so that hooks on any of them could change the result.
        """
        names = tuple(bypassed)
        parts = {name: part for name, part in self.block.named_modules() if name}
        spelt_out = [(name, type(parts[name]).forward) for name in names]
        watching = replace(
            self,
            watched=tuple(parts) if self.prefix_only else names,
            idle=tuple(name for name in parts if name.endswith("attn_drop")),
            spelt_out=(("", type(self.block).forward), *spelt_out),
        )
        if not self.hooks_of_ours:
            watching.check_hooks()
        return watching

    def check_hooks(self) -> None:
        """Refuse hooks that would be passed over, or see prefix tokens alone."""
        for name in (*self.watched, *filter(self._is_called_now, self.idle)):
            part = _find_part(self.block, name)
            if part is None:  # as after `merge_and_unload` of PEFT: what is gone has no hooks
                continue
            own = "forward" in vars(part)
            hooks = _is_read(part) or _of_others(part)
            if own or hooks or part._backward_hooks or part._backward_pre_hooks:
                what = "a forward of its own" if own else "hooks"
                effect = "call on prefix tokens alone" if self.prefix_only else "pass over"
                raise ModelError(
                    f"{name} of block {self.index} has {what}, which a policy would {effect}; "
                    f"remove them, or the policy, first"
                )

    def _is_called_now(self, dropout: str) -> bool:
        """Whether the host's attention would call its dropout: timm's switch may be set later."""
        attention = _find_part(self.block, dropout.rpartition(".")[0])
        return attention is not None and not getattr(attention, "fused_attn", True)

    def _check_code(self) -> None:
        """ModelError if what is done here in the place of modules is no longer what they do."""
        for name, code in self.spelt_out:
            part = _find_part(self.block, name)
            if part is None or type(part).forward is not code:
                what = f"{name} of block {self.index}" if name else f"block {self.index}"
                raise ModelError(
                    f"{what} has other code than when the policy was applied; apply it again, "
                    f"after such changes"
                )

    def forward(self, x: Tensor, *args: Any, **named: Any) -> Tensor:
        """Take the place of the host block's own `forward`."""
        if not torch.compiler.is_exporting():  # a file is what the model was
            self._check_unchanged()
        if _is_proxy(x):
            raise ModelError(
                "torch.fx cannot trace a model that follows a policy; take torch.export, or trace "
                "the model without the policy"
            )
        with self._range("other"):  # what none of the phases below holds
            return self._forward(x, self.family.read_call(self.block, *args, **named))

    def _forward(self, x: Tensor, rope: Tensor | None) -> Tensor:
        tokens = self.entry.read(x)
        self._check_count(tokens)
        with self._range("bias"):
            bias = self._bias(tokens)
        rotations = self._rotations(rope, tokens.position)
        with self._range("attention"):
            attended = self.family.attend(
                self.block,
                tokens.x,
                bias=bias,
                queries=self.prefix if self.prefix_only else None,
                rope=rotations,
            )
        present = tokens.size > 0 if self.varies and tokens.size is not None else None
        site = Site(self.block, attended, bias, tokens.x, attended.x, present)
        tokens = self.reduction.reduce(tokens._replace(x=attended.x), site, self._range)
        if self.family.second is not None:  # else attention and MLP ran side by side
            with self._range("mlp"):
                out = self.family.finish(self.block, tokens.x)
            site, tokens = site._replace(before=tokens.x, after=out), tokens._replace(x=out)
        return self.output.write(self.ending.reduce(tokens, site, self._range))

    def _check_unchanged(self) -> None:
        """ModelError if head, code or hooks are others than when the policy was applied."""
        if self.facts is not None:
            self.facts.check()
        self._check_code()
        if not self.hooks_of_ours:
            self.check_hooks()

    def _check_count(self, tokens: Tokens) -> None:
        """Hold what enters against what the policy promises."""
        count = tokens.x.shape[1] - self.prefix
        if count > self.patch_tokens if self.varies else count != self.patch_tokens:
            raise ModelError(
                f"block {self.index} was given {count} patch tokens; the policy in use promises it "
                f"{self.patch_tokens} (images of another size, or tokens dropped elsewhere)"
            )

    def _bias(self, tokens: Tokens) -> Tensor | None:
        """What is added to the logits of the attention, key by key."""
        if tokens.size is None:
            return None
        if self.proportional:
            return size_bias(tokens.size, tokens.log_size)
        return mask_bias(tokens.size) if self.varies else None

    def _rotations(self, rope: Tensor | None, positions: Tensor | None) -> Tensor | None:
        """Rotations of the tokens that are left: all of them, or picked by their positions."""
        if rope is None or positions is None:
            return rope
        with self._range("gathering"):
            return _pick_rotations(rope, positions)

    def _range(self, phase: Phase) -> AbstractContextManager[object]:
        """Open a range, or nothing: ranges cost time, so they are off unless asked for."""
        return nullcontext() if self.around is None else self.around(self.index, phase)


def _is_proxy(x: object) -> bool:
    """Whether a value stands for a tensor while torch.fx traces."""
    return isinstance(x, Proxy)


def _find_part(block: nn.Module, name: str) -> nn.Module | None:
    part: nn.Module | None = block
    for step in name.split(".") if name else ():
        part = getattr(part, step, None)
    return part


def _is_read(part: nn.Module) -> bool:
    """Whether a module has hooks after it but those of transformers.

    They hand out attention maps, which `adapters.transformers.read_call` refuses where wanted.
    """
    hooks = part._forward_hooks
    return bool(hooks) and not all(
        getattr(hook, "__module__", "") == "transformers.utils.output_capturing"
        for hook in hooks.values()
    )


def _of_others(part: nn.Module) -> bool:
    """Whether a module has hooks before it but torch's own, which compute its weight (`prune`)."""
    hooks = part._forward_pre_hooks
    return bool(hooks) and not all(
        type(hook).__module__.startswith("torch.nn.utils.") for hook in hooks.values()
    )


def _pick_rotations(rope: Tensor, positions: Tensor) -> Tensor:
    """Return the rotations of the tokens that are left.

    rope       (G, 2 D), (H, G, 2 D) or (B, 1 or H, G, 2 D)
    positions  (B, N) patches whose positions they have
    ->         broadcasts to (B, H, N, 2 D)
    """
    if rope.dim() == 4:
        index = positions[:, None, :, None].expand(-1, rope.shape[1], -1, rope.shape[-1])
        return rope.gather(2, index)
    if rope.dim() == 3:
        return rope[:, positions].transpose(0, 1)
    return rope[positions][:, None]
