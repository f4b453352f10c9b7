"""Searches without a clock: what is tested is what becomes of timings, so none is taken."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from tests.cells import CELL
from tests.search.tiny import by_macs, model
from tokensearch.accuracy.accuracy import Results
from tokensearch.costs.forecast import Forecast
from tokensearch.data.splits import Purpose
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.evaluation.latency import PolicyTimer
from tokensearch.evaluation.predictions import PredictionCache
from tokensearch.policy import Policy, mac_share
from tokensearch.records.measurements import Comparison


@contextmanager
def no_clock() -> Iterator[None]:
    """Policies are as fast as their multiply-accumulates promise, and nothing else is timed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PolicyTimer, "time", by_macs)
        patch.setattr(PolicyTimer, "time_together", together(by_macs))
        patch.setattr(PolicyEvaluator, "profile", lambda *_, **__: ())
        patch.setattr(
            "tokensearch.retime.retarget.make_forecast", lambda *_: Forecast(mac_share, 0.01)
        )
        yield


@contextmanager
def no_clock_in_runs() -> Iterator[None]:
    """Likewise for whole runs: nothing is swept, and no other model is looked for."""
    with no_clock(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "tokensearch.search.run.make_forecast", lambda *_, **__: Forecast(mac_share, 0.01)
        )
        patch.setattr("tokensearch.search.finalists.finish.find_alternatives", lambda *_, **__: ())
        yield


def together(time: Callable[[Any, Policy, Any], Comparison]) -> Callable[..., Any]:
    """What stands in for `PolicyTimer.time_together`, by what stands in for timing one policy."""
    return lambda timing, policies, budget, **_: tuple(
        time(timing, policy, budget) for policy in policies
    )


@dataclass
class Asked:
    """Which policies were asked about which images."""

    chunks: list[tuple[str, Purpose]] = field(default_factory=list)

    def about(self, purpose: Purpose) -> set[str]:
        """Schedules that were asked about images of one purpose."""
        return {name for name, split in self.chunks if split == purpose}


def listening(patch: pytest.MonkeyPatch) -> Asked:
    """Note every policy that is asked about images from here on."""
    asked, chunk = Asked(), PredictionCache.chunk

    def noted(self: PredictionCache, policy: Policy, purpose: Purpose, number: int) -> Results:
        asked.chunks.append((policy.schedule_hash, purpose))
        return chunk(self, policy, purpose, number)

    patch.setattr(PredictionCache, "chunk", noted)
    return asked


def timing(batch: int = 4) -> PolicyTimer:
    """The tiny model in a cell of its own."""
    cell = replace(CELL, batch=batch, resolution=32)
    return PolicyTimer(model(), torch.zeros(batch, 3, 32, 32), cell, 0)
