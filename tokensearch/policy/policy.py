"""A policy: a model, what its blocks do with their tokens, and the evidence for it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from typing import Any, Literal

from tokensearch.errors import PolicyError
from tokensearch.notebook import html_table
from tokensearch.policy.checks import check_counts, check_steps, check_tensors
from tokensearch.policy.model_spec import ModelSpec
from tokensearch.policy.step_fields import step_fields
from tokensearch.policy.steps import Merger, Prune, Step
from tokensearch.policy.tensors import Tensors

LastBlock = Literal["full", "prefix_only"]
Counts = Literal["static", "per_image"]
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured of a policy in one cell, as the records wrote it (`records.to_json`)."""

    cell: Json
    latency: Json
    accuracy: Json
    baseline: Json
    confirmed: bool
    extra: Json = field(default_factory=dict)  # unknown fields of a newer writer, kept

    @property
    def median_ms(self) -> float:
        """Median time of one pass, in milliseconds."""
        return float(self.latency["median_ms"])


@dataclass(frozen=True, slots=True, repr=False)
class Policy:
    """One schedule for one model. Blocks without a step keep all their tokens.

    >>> spec = ModelSpec("toy", blocks=3, patch_tokens=16, prefix_tokens=1, width=8)
    >>> Policy(spec, (Prune(1, keep=12), Prune(2, keep=10))).patch_tokens_per_block
    (16, 12, 10)
    """

    model: ModelSpec
    steps: tuple[Step, ...] = ()
    proportional_attention: bool = False  # add log(size) to the logits of every key (ToMe)
    last_block: LastBlock = "full"  # "prefix_only": the last block computes prefix tokens alone
    evidence: tuple[Evidence, ...] = field(default=(), hash=False)
    provenance: Json = field(default_factory=dict, hash=False)
    extra: Json = field(default_factory=dict, hash=False)  # unknown fields, kept when written again
    tensors: Tensors | None = None  # what its steps have learned, in a file of its own
    counts: Counts = "static"  # "per_image": thresholds decide, image by image

    def __post_init__(self) -> None:
        steps = check_steps(self.model, self.steps)
        if self.last_block == "prefix_only":  # the last block then drops every patch token anyway
            steps = tuple(step for step in steps if step.block != self.model.blocks - 1)
        object.__setattr__(self, "steps", steps)
        check_counts(steps, self.counts)
        if not steps:  # then no image's counts differ, and compilers and exports may follow
            object.__setattr__(self, "counts", "static")
        check_tensors(self.model, steps, self.tensors)
        if self.last_block not in ("full", "prefix_only"):
            raise PolicyError(f"last_block is {self.last_block!r}; it may be full or prefix_only")
        if self.last_block == "prefix_only" and self.model.prefix_tokens == 0:
            raise PolicyError(
                "last_block is prefix_only, but the model has no prefix tokens to keep"
            )

    def __repr__(self) -> str:
        return f"<{describe_policy(self)}>"

    def _repr_html_(self) -> str:
        """Return the schedule as a table, for notebooks."""
        done = (
            " then ".join(f"{step.op} to {step.keep}" for step in self.steps_of(block))
            for block in range(self.model.blocks)
        )
        rows = zip(range(self.model.blocks), done, self.patch_tokens_after_block, strict=True)
        return html_table(describe_policy(self), ("block", "step", "patch tokens left"), rows)

    @property
    def patch_tokens_per_block(self) -> tuple[int, ...]:
        """Patch tokens that each block's MLP sees. Derived, so it cannot disagree.

        Where thresholds decide, as many as in the mean over the images that they were found on.
        """
        return tuple(at_mlp for at_mlp, _ in self.patch_tokens_by_block)

    @property
    def patch_tokens_after_block(self) -> tuple[int, ...]:
        """Patch tokens that each block hands on; fewer than its MLP saw after a step at its end."""
        return tuple(at_end for _, at_end in self.patch_tokens_by_block)

    @property
    def patch_tokens_by_block(self) -> tuple[tuple[int, int], ...]:
        """Patch tokens of each block: at its MLP, and at its end."""
        left, counts = self.model.patch_tokens, []
        steps = {block: [*each] for block, each in groupby(self.steps, lambda step: step.block)}
        for block in range(self.model.blocks):
            at_mlp = left
            for step in steps.get(block, ()):
                left = step.keep
                at_mlp = left if step.at == "between" else at_mlp
            counts.append((at_mlp, left))
        if self.last_block == "prefix_only":
            counts[-1] = 0, 0
        return tuple(counts)

    @property
    def reduces(self) -> bool:
        """Whether anything differs from the baseline."""
        return bool(self.steps) or self.last_block != "full"

    @property
    def schedule_hash(self) -> str:
        """Hash of what is computed: equal schedules for equal geometries have equal hashes."""
        computed = {
            "geometry": self.model.geometry,
            "steps": [step_fields(step) for step in self.steps],
            "proportional_attention": self.proportional_attention and self._sized,
            "last_block": self.last_block,
        }
        if self.counts != "static":
            computed["counts"] = self.counts
        if self.tensors is not None:
            computed["tensors"] = self.tensors.sha256
        text = json.dumps(computed, sort_keys=True)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @property
    def scores(self) -> frozenset[str]:
        """Every score that a step goes by."""
        return frozenset(step.score for step in self.steps if step.score is not None)

    @property
    def _sized(self) -> bool:
        """Whether sizes matter: else all are 1, and proportional attention adds log(1) = 0."""
        return any(changes_sizes(step) for step in self.steps)

    def steps_of(self, block: int) -> tuple[Step, ...]:
        """Steps of one block, in the order they act."""
        return tuple(step for step in self.steps if step.block == block)

    def with_evidence(self, *evidence: Evidence, provenance: Json | None = None) -> "Policy":
        """Return the same schedule, with what was measured of it."""
        return replace(self, evidence=evidence, provenance=provenance or self.provenance)


def describe_policy(policy: Policy) -> str:
    """Say in a line which schedule this is.

    >>> spec = ModelSpec("toy", blocks=3, patch_tokens=16, prefix_tokens=1, width=8)
    >>> Policy(spec, (Prune(1, keep=12),))
    <Policy 5d1655e1 of toy: 16 patch tokens, then 16 12 12 by block>
    """
    counts = " ".join(map(str, policy.patch_tokens_after_block))
    before = policy.model.patch_tokens
    name = f"Policy {policy.schedule_hash.removeprefix('sha256:')[:8]} of {policy.model.name:.60}"
    return f"{name}: {before} patch tokens, then {counts} by block"


def changes_sizes(step: Step) -> bool:
    """Whether tokens come out of `step` that stand for more than one patch.

    EViT's fused token does not: it is no mean of what was discarded, but what little they weighed.
    Nor do the means of a merger: each is one of all tokens. What fills images up after a threshold
    stands for none.
    """
    match step:
        case Prune(rest=rest):
            return rest == "mean"
        case Merger():
            return False
        case _:
            return True


def check_static(policy: Policy | None, what: str) -> None:
    """Refuse `what` for a policy whose counts differ from image to image."""
    if policy is not None and policy.counts == "per_image":
        raise PolicyError(
            f"{what} needs fixed counts, but the policy keeps other counts for other images; "
            f"`tokensearch tune freeze POLICY` makes it static"
        )


def block_macs(policy: Policy) -> tuple[int, ...]:
    """Multiply-accumulates of each block for one image; stem, head and the steps left out.

    As the papers count their "GFLOPs": attention on the tokens before the step, MLP on those
    after it, 4 N C^2 + 2 N^2 C + 8 N' C^2 (the formula of DiffRate's code). A last
    block of prefix tokens alone projects keys and values of all tokens, and the rest of the prefix
    only.
    """
    model, macs = policy.model, list[int]()
    width, prefix, before = model.width, model.prefix_tokens, model.tokens
    for block, (patches, handed_on) in enumerate(policy.patch_tokens_by_block):
        after = prefix + patches
        asking = before
        if block == model.blocks - 1 and policy.last_block == "prefix_only":
            asking = prefix
        macs.append(count_macs(before, asking, after, width))
        before = prefix + handed_on
    return tuple(macs)


def count_macs(entering: Any, asking: Any, left: Any, width: int) -> Any:
    """Multiply-accumulates of one block.

    entering  tokens that attention reads, prefix included; a number, or a tensor of them
    asking    those whose outputs it computes
    left      those that the MLP sees
    """
    projections = 2 * (entering + asking) * width**2
    return projections + 2 * asking * entering * width + 8 * left * width**2


def mac_share(policy: Policy) -> float:
    """Multiply-accumulates of the blocks, as a share of the baseline's."""
    return sum(block_macs(policy)) / _baseline_macs(policy.model)


@lru_cache(maxsize=64)  # samplers predict thousands of schedules of a model
def _baseline_macs(model: ModelSpec) -> int:
    return sum(block_macs(Policy(model)))
