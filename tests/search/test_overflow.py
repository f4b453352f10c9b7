"""A policy whose numbers overflow fails alone, and the block where they do is named."""

from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from torch import Tensor, nn

from tests.search import tiny
from tests.search.clockless import no_clock
from tokensearch.errors import MeasurementError

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

FEW = range(8, 17)  # of the tiny model's 17 tokens; more than a block is opened with as a test


class Overflowing(nn.Module):
    """Overflows where tokens are missing, or always."""

    def __init__(self, inner: nn.Module, *, always: bool) -> None:
        super().__init__()
        self.inner, self.always = inner, always

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out * inf if self.always or x.shape[1] in FEW else out


def overflowing(*, always: bool) -> nn.Module:
    model = tiny.model()
    model.blocks[4].mlp = Overflowing(model.blocks[4].mlp, always=always)
    return model


def test_a_policy_that_overflows_fails_alone_and_its_block_is_named(tmp_path: Path) -> None:
    session = replace(tiny.session(tmp_path / "run", trials=5), model=overflowing(always=False))

    with no_clock():
        document = session.run()

    failed = [text for text in session.listener.cautions if text.startswith("a trial failed")]
    assert failed
    assert all("block 4 is the first whose tokens are not finite" in text for text in failed)
    assert "the model's logits are not finite for image 0 of the search split" in failed[0]
    assert document.result is not None
    trials = session.folder.read_trials()
    assert trials[0].origin == "none"
    assert any(trial.origin != "none" for trial in trials)


def test_a_baseline_that_overflows_ends_the_run(tmp_path: Path) -> None:
    session = replace(tiny.session(tmp_path / "run", trials=5), model=overflowing(always=True))

    with no_clock(), pytest.raises(MeasurementError, match="are not finite for image 0"):
        session.run()
