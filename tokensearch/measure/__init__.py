"""Clocks, paired timing, verdicts, machine and profile: how a callable is timed."""

from tokensearch.measure.attention import attention_of, sdpa_backend
from tokensearch.measure.clock import Clock, CudaEvents, Flushed, Run, WallClock, clock_for
from tokensearch.measure.doubts import cautions, doubt_itself
from tokensearch.measure.machine import describe_cell, noise, this_machine
from tokensearch.measure.paired import Budget, compare
from tokensearch.measure.profile import profile
from tokensearch.measure.statistics import ratio_interval, verdict
from tokensearch.measure.watch import Watch

__all__ = [
    "Budget",
    "Clock",
    "CudaEvents",
    "Flushed",
    "Run",
    "WallClock",
    "Watch",
    "attention_of",
    "cautions",
    "clock_for",
    "compare",
    "describe_cell",
    "doubt_itself",
    "noise",
    "profile",
    "ratio_interval",
    "sdpa_backend",
    "this_machine",
    "verdict",
]
