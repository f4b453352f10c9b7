"""Which blocks a policy changes, and what each hands on to the next."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from tokensearch.errors import ModelError
from tokensearch.policy import Policy, Pool, changes_sizes
from tokensearch.policy.steps import LEARNED, At
from tokensearch.runtime.adapters import BlockFamily, family_of
from tokensearch.runtime.host import Host
from tokensearch.runtime.pooled_head import averages
from tokensearch.runtime.reduce import ChooseThreshold, MaskLearner
from tokensearch.runtime.reduced_block import Around, ReducedBlock
from tokensearch.runtime.token_flow import (
    CutReduction,
    DenseOutput,
    Entry,
    NoReduction,
    Output,
    PlainEntry,
    PlainOutput,
    Reduction,
    StateEntry,
    StateOutput,
    StepReduction,
)

PRENORM = frozenset({"Block", "EvaBlock"})  # families whose `norm1` is what attention reads


@dataclass(frozen=True)
class Extras:
    """What is wanted beside the policy itself."""

    dense: bool = False  # every block hands out the full grid
    sources: bool = False  # from the first block on, it is known where patches went
    floor: bool = False  # steps cut tokens off instead, the last ones first
    grid: bool = False  # the last block hands out the full grid, to a head of the host's own code
    around: Around | None = None  # put around every phase of what is changed
    choose: ChooseThreshold | None = None  # thresholds are looked for instead of taken
    learner: MaskLearner | None = None  # thresholds learn: what is below them is masked


def make_plan(
    host: Host, policy: Policy, extras: Extras, *, weighs: bool
) -> Iterator[ReducedBlock]:
    """Plan the blocks that do something: reduce, or pass on what others know of their tokens.

    weighs  the head wants sizes
    """
    plan = _Plan(host, policy, extras, weighs)
    patch_tokens = policy.model.patch_tokens
    for index, block in enumerate(host.blocks):
        if plan.changes(index):
            yield plan.make_block(index, block, patch_tokens)
        steps = policy.steps_of(index)
        if steps and not plan.varies:
            patch_tokens = steps[-1].keep


@dataclass(frozen=True)
class _Plan:
    """Who knows what of the tokens, by the index of a block; one past the last is the head."""

    host: Host
    policy: Policy
    extras: Extras
    weighs: bool

    @cached_property
    def sizes(self) -> range:
        """Blocks that tokens with sizes enter and that need them."""
        changing = [step.block for step in self.policy.steps if changes_sizes(step)]
        if self.extras.floor or not changing:
            return range(0)
        if self.weighs:
            last = len(self.host.blocks)
        elif self.policy.proportional_attention or self.varies:
            last = len(self.host.blocks) - 1
        else:
            last = changing[-1]  # which weighs by size
        return range(changing[0] + 1, last + 1)

    @property
    def varies(self) -> bool:
        """Whether counts differ from image to image: sizes of 0 then mask what images lack."""
        return self.policy.counts == "per_image"

    @cached_property
    def first_tracked(self) -> int:
        """First block that notes which patches its tokens are; past the head where none does."""
        never = len(self.host.blocks) + 1
        if self.extras.sources:
            return 0
        follows = self.extras.dense or self.extras.grid or self.host.rotates
        return self.policy.steps[0].block if follows and self.policy.steps else never

    def changes(self, index: int) -> bool:
        """Whether the block does anything but run the host's code."""
        return (
            bool(self.policy.steps_of(index))
            or self._prefix_only(index)
            or index in self.sizes
            or index >= self.first_tracked
        )

    def make_block(self, index: int, block: nn.Module, patch_tokens: int) -> ReducedBlock:
        """Return the block that takes the place of `block`, which `patch_tokens` enter."""
        family = family_of(block)
        assert family is not None  # `as_host` refuses others
        self._check_metric(index, family)
        return ReducedBlock(
            block,
            family,
            index,
            prefix=self.host.num_prefix_tokens,
            patch_tokens=patch_tokens,
            entry=self._entry(index),
            reduction=self._reduction(index, "between"),
            ending=self._reduction(index, "block_end"),
            output=self._output(index),
            # Elsewhere sizes are 1; a flag without effect would tell equal blocks apart.
            proportional=self.policy.proportional_attention and index in self.sizes,
            varies=self.varies and index in self.sizes,
            prefix_only=self._prefix_only(index),
            around=self.extras.around,
            hooks_of_ours=self.extras.sources or self.extras.around is not None,
        )

    def _check_metric(self, index: int, family: BlockFamily) -> None:
        """Refuse a learned metric where it has nothing to read: no norm before attention."""
        steps = self.policy.steps_of(index)
        learns = any(isinstance(step, Pool) and step.metric == LEARNED for step in steps)
        if learns and family.name not in PRENORM:
            raise ModelError(
                f"block {index}, a {family.name}, has no norm before its attention, which the "
                f"learned metric of the policy reads; compare keys"
            )

    def _entry(self, index: int) -> Entry:
        if self._reads_state(index):
            return StateEntry(index)
        return PlainEntry(
            self.host.num_prefix_tokens,
            positions=self.host.rotates,
            sources=self.extras.sources or self.extras.dense or self.extras.grid,
        )

    def _reduction(self, index: int, at: At) -> Reduction:
        prefix = self.host.num_prefix_tokens
        steps = tuple(step for step in self.policy.steps_of(index) if step.at == at)
        if not steps:
            return NoReduction()
        if self.extras.floor:
            return CutReduction(prefix + steps[-1].keep)
        learns = any(step.tensors is not None for step in steps)
        tensors = self.policy.tensors.sha256 if learns and self.policy.tensors else None
        sizes = index + 1 in self.sizes
        # Else nothing would be averaged, or attended to. Dense features are of the same tokens.
        least = int(averages(self.host.model) or prefix == 0)
        return StepReduction(
            steps,
            prefix,
            index,
            len(self.host.blocks),
            sizes,
            least,
            tensors,
            self.extras.choose,
            self.extras.learner,
        )

    def _output(self, index: int) -> Output:
        state = self._reads_state(index + 1)
        last = index == len(self.host.blocks) - 1
        if self.extras.dense or (self.extras.grid and last):
            return DenseOutput(self.host.num_prefix_tokens, state)
        return StateOutput() if state else PlainOutput()

    def _prefix_only(self, index: int) -> bool:
        return index == len(self.host.blocks) - 1 and self.policy.last_block == "prefix_only"

    def _reads_state(self, index: int) -> bool:
        """Whether what enters has state: sizes, or the patches that an earlier block has noted."""
        # Past the last block, only a trace asks for patches.
        end = len(self.host.blocks) + self.extras.sources
        return index in self.sizes or self.first_tracked < index < end
