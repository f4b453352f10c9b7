"""Search for the schedules worth having: propose, measure, confirm, choose."""

from tokensearch.progress import ProgressListener
from tokensearch.search.run import SearchRun
from tokensearch.search.settings import SAMPLERS, SearchBudget, SearchSettings
from tokensearch.search.space.space import SearchSpace
from tokensearch.search.space.toml import load_space

__all__ = [
    "SAMPLERS",
    "ProgressListener",
    "SearchBudget",
    "SearchRun",
    "SearchSettings",
    "SearchSpace",
    "load_space",
]
