"""Search for the schedules worth having: propose, measure, confirm, choose."""

from tokensearch.progress import ProgressListener
from tokensearch.records.run_settings import SAMPLERS, SearchBudget, SearchSettings
from tokensearch.search.run import SearchRun
from tokensearch.search.sampler.local import LocalSampler
from tokensearch.search.space.space import SearchSpace
from tokensearch.search.space.toml import load_space

__all__ = [
    "SAMPLERS",
    "LocalSampler",
    "ProgressListener",
    "SearchBudget",
    "SearchRun",
    "SearchSettings",
    "SearchSpace",
    "load_space",
]
