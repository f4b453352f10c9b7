"""One block that follows a policy.

Everything is decided when it is attached: a pass only runs tensors through.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tokensearch.errors import ModelError
from tokensearch.ops import Tokens, cut, restored, size_bias, started
from tokensearch.policy import Step
from tokensearch.records.profile import Phase
from tokensearch.runtime.adapters import Attended, Family
from tokensearch.runtime.reduce import StepReducer
from tokensearch.runtime.token_state import attach_state, attach_state_to, read_state

# Opens a range around one phase of one block: a profiler's, or one that notes the time.
Around = Callable[[int, Phase], AbstractContextManager[object]]


@dataclass(frozen=True, eq=False)
class ReducedBlock:
    """A host block, and what it does between its attention and its MLP."""

    block: nn.Module
    family: Family
    place: int  # which block of the model, from 0
    prefix: int
    enters: int  # patch tokens that the policy promises on entry
    steps: tuple[Step, ...] = ()
    proportional: bool = False  # add log(size) to the attention logits
    prefix_only: bool = False  # compute prefix tokens alone: the last block
    begins: bool = True  # plain features enter; False: tokens that earlier blocks have changed
    hands_on: bool = False  # who comes next wants more than features
    sizes: bool = False  # ... sizes, namely
    places: bool = False  # the host rotates by position, so positions must travel
    sources: bool = False  # somebody wants to know where patches went
    dense: bool = False  # hand out the full grid
    floor: bool = False  # cut tokens off instead of reducing them: what no operator can get below
    around: Around | None = None  # what to put around every phase

    def forward(
        self,
        x: Tensor,
        rope: Tensor | None = None,
        attn_mask: Tensor | None = None,
        **unused: Any,
    ) -> Tensor:
        """Take the place of the host block's own `forward`."""
        with self._range("other"):  # what none of the phases below holds
            return self._forward(x, rope, attn_mask, unused)

    def _forward(
        self, x: Tensor, rope: Tensor | None, attn_mask: Tensor | None, unused: dict[str, Any]
    ) -> Tensor:
        if attn_mask is not None or any(unused.values()):
            raise ModelError("a model that follows a policy takes no attention mask")
        tokens = self._entering(x)
        with self._range("bias"):
            sized = self.proportional and tokens.size is not None
            bias = size_bias(tokens.size) if sized and tokens.size is not None else None
        rotations = self._rotations(rope, tokens.place)
        with self._range("attention"):
            attended = self.family.attend(
                self.block,
                tokens.x,
                bias=bias,
                queries=self.prefix if self.prefix_only else None,
                rope=rotations,
            )
        tokens = self._reduced(tokens._replace(x=attended.x), attended, bias)
        if self.family.second is None:  # attention and MLP ran side by side
            return self._leaving(tokens)
        with self._range("mlp"):
            out = self.family.finish(self.block, tokens.x)
        return self._leaving(tokens._replace(x=out))

    def _rotations(self, rope: Tensor | None, place: Tensor | None) -> Tensor | None:
        """Rotations of the tokens that are left: all of them, or picked by their places."""
        if rope is None or place is None:
            return rope
        with self._range("gathering"):
            return _rope_of(rope, place)

    def _entering(self, x: Tensor) -> Tokens:
        """Unpack what enters, and hold it against what the policy promises."""
        if self.begins:
            tokens = started(x, prefix=self.prefix, places=self.places, sources=self.sources)
        else:
            carried = read_state(x)
            if carried is None:
                raise ModelError(
                    f"block {self.place} needs what block {self.place - 1} knew of its tokens, but "
                    f"something between them made new features (a hook, or checkpointing)"
                )
            tokens = carried
        found = tokens.x.shape[1] - self.prefix
        if found != self.enters:
            raise ModelError(
                f"block {self.place} was given {found} patch tokens; the policy in use promises it "
                f"{self.enters} (images of another size, or tokens dropped elsewhere)"
            )
        return tokens

    def _reduced(self, tokens: Tokens, attended: Attended, bias: Tensor | None) -> Tokens:
        if not self.steps:
            return tokens
        if self.floor:
            with self._range("gathering"):  # making whole rows of them is no part of the floor
                return cut(tokens, self.prefix + self.steps[-1].keep)
        reduction = StepReducer(self.prefix, self.place, attended, bias, self._range, self.sizes)
        for step in self.steps:
            tokens = reduction.carry_out(step, tokens)
        return tokens

    def _leaving(self, tokens: Tokens) -> Tensor:
        if self.dense:
            grid = restored(tokens, prefix=self.prefix)
            return attach_state_to(grid, tokens) if self.hands_on else grid
        return attach_state(tokens) if self.hands_on else tokens.x

    def _range(self, phase: Phase) -> AbstractContextManager[object]:
        """Open a range, or nothing: ranges cost time, so they are off unless asked for."""
        return nullcontext() if self.around is None else self.around(self.place, phase)


def _rope_of(rope: Tensor, place: Tensor) -> Tensor:
    """Return the rotations of the tokens that are left.

    rope  (G, 2 D), (H, G, 2 D) or (B, 1 or H, G, 2 D)
    place (B, N) patches whose positions they have
    ->    broadcasts to (B, H, N, 2 D)
    """
    if rope.dim() == 4:
        index = place[:, None, :, None].expand(-1, rope.shape[1], -1, rope.shape[-1])
        return rope.gather(2, index)
    if rope.dim() == 3:
        return rope[:, place].transpose(0, 1)
    return rope[place][:, None]
