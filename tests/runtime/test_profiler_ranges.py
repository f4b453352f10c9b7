"""Ranges split a block in the same place, whether it is opened or runs the host's own code."""

from contextlib import AbstractContextManager, contextmanager

import pytest
import torch

import tokensearch
from tokensearch.doctor.models import pictures, tiny
from tokensearch.policy import Policy, Prune
from tokensearch.records.profile import Phase
from tokensearch.runtime import describe, phase_ranges

HOSTS = {
    "Block": "vit_tiny_patch16_224",
    "Block with q/k-norm": "vit_medium_patch16_reg4_gap_256",
    "ResPostBlock": "vit_base_patch16_rpn_224",
    "ParallelThingsBlock": "vit_small_patch16_18x2_224",
    "ParallelScalingBlock": "vit_pwee_patch16_reg1_gap_256",
    "DiffParallelScalingBlock": "vit_dpwee_patch16_reg1_gap_256",
    "EvaBlock": "eva02_tiny_patch14_224",
    "EvaBlockPostNorm": "eva02_enormous_patch14_clip_224",
    "AttentionRope": "vit_small_patch16_rope_ape_224",
}


class Diary:
    """Ranges that write down what was entered, in which range."""

    def __init__(self) -> None:
        self.entered: list[tuple[int, Phase, Phase | None]] = []
        self.inside: list[Phase] = []

    @contextmanager
    def _range(self, block: int, phase: Phase) -> object:
        self.entered.append((block, phase, self.inside[-1] if self.inside else None))
        self.inside.append(phase)
        yield
        assert self.inside.pop() == phase

    def around(self, block: int, phase: Phase) -> AbstractContextManager[object]:
        return self._range(block, phase)

    def of(self, block: int) -> list[tuple[Phase, Phase | None]]:
        """What a block entered, the runtime's own code left out."""
        own = [(phase, outer) for where, phase, outer in self.entered if where == block]
        return [
            (phase, None if outer == "other" else outer)
            for phase, outer in own
            if phase not in {"other", "bias", "selecting", "gathering", "scoring"}
        ]


@pytest.mark.parametrize("name", HOSTS.values(), ids=HOSTS)
def test_ranges_change_no_output_and_fall_alike_in_both_kinds_of_block(name: str) -> None:
    model = tiny(name)
    spec, x = describe(model), pictures(model)
    policy = Policy(spec, (Prune(1, spec.patch_tokens - 1, score="random"),))
    with torch.inference_mode(), tokensearch.applied(model, policy):
        expected = model(x)
        diary = Diary()

        with phase_ranges(model, diary.around):
            found = model(x)

    torch.testing.assert_close(found, expected)
    assert diary.inside == []
    assert ("attention", None) in diary.of(0)
    assert diary.of(0) == diary.of(1)  # block 1 is opened, block 0 is the host's own


def test_hooks_are_gone_afterwards() -> None:
    model = tiny("vit_tiny_patch16_224")
    before = sum(len(part._forward_hooks) for part in model.modules())

    with phase_ranges(model, Diary().around):
        assert sum(len(part._forward_hooks) for part in model.modules()) > before

    assert sum(len(part._forward_hooks) for part in model.modules()) == before
    assert not any(part._forward_pre_hooks for part in model.modules())
