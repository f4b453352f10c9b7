"""What runs do for precision alone, in a tenth of the time."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tokensearch.evaluation import evaluator
from tokensearch.measure import TimingBudget, roofline
from tokensearch.profiling import ProfilePlan

# Of which a proposal is chosen, a generation: how good proposals are is asked in `test_local`.
CANDIDATES = 30


@contextmanager
def short_profiles() -> Iterator[None]:
    """Runs profile few passes, and measure ceilings by small products and copies."""
    with pytest.MonkeyPatch.context() as patch:
        plan = ProfilePlan(TimingBudget(warmup=1, max_rounds=12, seconds=6.0), traced_passes=2)
        patch.setattr(evaluator, "PROFILING", plan)
        patch.setattr(roofline, "PRODUCT_ROWS", 256)
        patch.setattr(roofline, "COPY_NUMBERS", 2**18)
        patch.setattr(roofline, "CEILING_PASSES", 2)
        yield


@contextmanager
def few_candidates() -> Iterator[None]:
    """Proposals of the local search are chosen of few: it is half of the search of a tiny model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tokensearch.search.sampler.local.CHILDREN", CANDIDATES)
        yield
