"""One block that follows a policy.

Everything is decided when it is attached: a pass only runs tensors through. Token sizes travel
with the features from block to block (`Tokens`), never in state beside the model, so that threads
may share a model and `torch.compile` sees pure functions.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tokensearch.errors import ModelError
from tokensearch.ops import (
    Tokens,
    best,
    class_attention,
    match_bipartite,
    merge,
    pick,
    random_order,
    size_bias,
    take,
)
from tokensearch.policy import Pool, Prune, Step
from tokensearch.records import Phase, range_name
from tokensearch.runtime.adapter import Attended, attention_half, mlp_half


@dataclass(frozen=True, eq=False)
class OpenedBlock:
    """A host block, and what it does between its attention and its MLP."""

    block: nn.Module
    place: int  # which block of the model, from 0
    prefix: int
    enters: int  # patch tokens that the policy promises on entry
    steps: tuple[Step, ...] = ()
    proportional: bool = False  # add log(size) to the attention logits
    prefix_only: bool = False  # compute prefix tokens alone: the last block
    hands_on_size: bool = False  # the next block wants `Tokens`, not features alone
    ranges: bool = False  # write profiler ranges

    def forward(
        self, x: Tensor | Tokens, attn_mask: Tensor | None = None, **unused: Any
    ) -> Tensor | Tokens:
        """Take the place of the host block's own `forward`."""
        if attn_mask is not None or any(unused.values()):
            raise ModelError("a model that follows a policy takes no attention mask")
        tokens = x if isinstance(x, Tokens) else Tokens(x)
        self._check(tokens)
        with self._range("attention"):
            bias = size_bias(tokens.size) if self.proportional and tokens.size is not None else None
            queries = self.prefix if self.prefix_only else None
            attended = attention_half(self.block, tokens.x, bias=bias, queries=queries)
        tokens = self._reduce(Tokens(attended.x, tokens.size), attended, bias)
        with self._range("mlp"):
            out = mlp_half(self.block, tokens.x)
        return Tokens(out, tokens.size) if self.hands_on_size else out

    def _reduce(self, tokens: Tokens, attended: Attended, bias: Tensor | None) -> Tokens:
        """Carry out the block's steps: at most one prune, then at most one pool."""
        metric = attended.keys.mean(dim=1) if any(isinstance(s, Pool) for s in self.steps) else None
        for step in self.steps:
            match step:
                case Prune():
                    with self._range("scoring"):
                        score = self._score(step, attended, bias)
                        index = best(score, keep=step.keep, prefix=self.prefix)
                    with self._range("gather_merge"):
                        tokens = pick(tokens, index)
                        metric = None if metric is None else take(metric, index)
                case Pool():
                    assert metric is not None
                    with self._range("matching"):
                        removed = metric.shape[1] - self.prefix - step.keep
                        matching = match_bipartite(metric, removed=removed, prefix=self.prefix)
                    with self._range("gather_merge"):
                        tokens = merge(tokens, matching, prefix=self.prefix)
        return tokens

    def _score(self, step: Prune, attended: Attended, bias: Tensor | None) -> Tensor:
        """Score patch tokens: (B, N)."""
        match step.score:
            case "class_attention":
                query, keys = attended.class_query, attended.keys
                return class_attention(query, keys, prefix=self.prefix, bias=bias)
            case "random":
                images, left = attended.x.shape[0], attended.keys.shape[2] - self.prefix
                return random_order(images, left, seed=self.place, device=attended.x.device)

    def _check(self, tokens: Tokens) -> None:
        """Refuse images of another size than the policy was made for."""
        found = tokens.x.shape[1] - self.prefix
        if found != self.enters:
            raise ModelError(
                f"block {self.place} was given {found} patch tokens; the policy in use promises it "
                f"{self.enters} (images of another size, or tokens dropped elsewhere)"
            )

    def _range(self, phase: Phase) -> AbstractContextManager[object]:
        """Open a profiler range, or nothing: ranges cost time, so they are off unless asked for."""
        return (
            torch.profiler.record_function(range_name(self.place, phase))
            if self.ranges
            else nullcontext()
        )
