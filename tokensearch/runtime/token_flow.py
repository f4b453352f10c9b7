"""How tokens enter a block that follows a policy, what its steps do to them, and how they leave.

Each is one choice of few, made when the policy is applied. The choices are frozen values: two
blocks with equal ones compute the same.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from tokensearch.errors import ModelError
from tokensearch.ops import Tokens, cut, restore_grid, start_tokens
from tokensearch.policy import Step
from tokensearch.records.profile import Phase
from tokensearch.runtime.reduce import ChooseThreshold, MaskLearner, Site, StepReducer
from tokensearch.runtime.token_state import attach_state, attach_state_to, read_state

OpenRange = Callable[[Phase], AbstractContextManager[object]]


class Entry(Protocol):
    """Makes tokens of what enters a block."""

    def read(self, x: Tensor) -> Tokens:
        """Return the tokens of the features `x`, (B, P + N, C)."""
        ...


@dataclass(frozen=True)
class PlainEntry:
    """Plain features enter: no earlier block has changed what their rows stand for."""

    prefix: int
    positions: bool  # note the patch whose position each token has, since the host rotates by it
    sources: bool  # note which token holds each patch

    def read(self, x: Tensor) -> Tokens:
        """Return the tokens of `x`, each its own patch."""
        return start_tokens(x, prefix=self.prefix, places=self.positions, sources=self.sources)


@dataclass(frozen=True)
class StateEntry:
    """Tokens enter whose state an earlier block attached to the features."""

    index: int  # of the block

    def read(self, x: Tensor) -> Tokens:
        """Return the tokens that `x` carries; ModelError where it carries none."""
        tokens = read_state(x)
        if tokens is None:
            raise ModelError(
                f"block {self.index} needs what block {self.index - 1} knew of its tokens, but "
                f"something between them made new features (a hook, or checkpointing)"
            )
        return tokens


class Reduction(Protocol):
    """Reduces tokens between attention and MLP, or at the end of the block."""

    def reduce(self, tokens: Tokens, site: Site, open_range: OpenRange) -> Tokens:
        """Return the tokens that are left."""
        ...


@dataclass(frozen=True)
class NoReduction:
    """Keeps all tokens."""

    def reduce(self, tokens: Tokens, site: Site, open_range: OpenRange) -> Tokens:
        """Return the tokens themselves."""
        del site, open_range
        return tokens


@dataclass(frozen=True)
class StepReduction:
    """Carries out the steps of the policy."""

    steps: tuple[Step, ...]
    prefix: int
    index: int  # of the block
    blocks: int  # of the model
    sizes: bool  # who comes next wants sizes
    least: int  # patch tokens that thresholds leave at least
    tensors: str | None = None  # hash of what the steps have learned
    choose: ChooseThreshold | None = None
    learner: MaskLearner | None = None

    def reduce(self, tokens: Tokens, site: Site, open_range: OpenRange) -> Tokens:
        """Return the tokens that the last step leaves."""
        reducer = StepReducer(
            self.prefix,
            self.index,
            self.blocks,
            site,
            open_range,
            self.sizes,
            self.least,
            self.choose,
            self.learner,
        )
        for step in self.steps:
            tokens = reducer.carry_out(step, tokens)
        return tokens


@dataclass(frozen=True)
class CutReduction:
    """Cuts the last tokens off instead of choosing: what no operator can be faster than."""

    length: int  # tokens that are left, prefix included

    def reduce(self, tokens: Tokens, site: Site, open_range: OpenRange) -> Tokens:
        """Return the first tokens."""
        del site
        with open_range("gathering"):  # making whole rows of them is no part of the floor
            return cut(tokens, self.length)


class Output(Protocol):
    """Makes features of the tokens that leave a block."""

    def write(self, tokens: Tokens) -> Tensor:
        """Return features, (B, P + N, C), or the full grid, (B, P + G, C)."""
        ...


@dataclass(frozen=True)
class PlainOutput:
    """Hands on features alone."""

    def write(self, tokens: Tokens) -> Tensor:
        """Return the features."""
        return tokens.x


@dataclass(frozen=True)
class StateOutput:
    """Hands on features with the state of their tokens, which a later block or the head reads."""

    def write(self, tokens: Tokens) -> Tensor:
        """Return the features with their state attached."""
        return attach_state(tokens)


@dataclass(frozen=True)
class DenseOutput:
    """Hands out the full grid."""

    prefix: int
    state: bool  # the next block reads the tokens that the grid stands for

    def write(self, tokens: Tokens) -> Tensor:
        """Return the grid, with the tokens attached where the next block reads them."""
        grid = restore_grid(tokens, prefix=self.prefix)
        return attach_state_to(grid, tokens) if self.state else grid
