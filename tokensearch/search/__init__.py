"""Search for the schedules worth having: propose, measure, confirm, choose."""

from tokensearch.search.listener import Listener
from tokensearch.search.samplers import SAMPLERS
from tokensearch.search.session import Session
from tokensearch.search.settings import Limits, Settings
from tokensearch.search.space import Space
from tokensearch.search.space_file import load_space

__all__ = ["SAMPLERS", "Limits", "Listener", "Session", "Settings", "Space", "load_space"]
