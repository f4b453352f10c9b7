"""Clocks, paired timing, verdicts, machine and profile: how a callable is timed."""

from tokensearch.measure.clock import Clock, CudaEvents, Run, WallClock, clock_for
from tokensearch.measure.machine import describe_cell, noise, this_machine
from tokensearch.measure.paired import Budget, compare
from tokensearch.measure.profile import profile
from tokensearch.measure.statistics import cautions, ratio_interval, verdict

__all__ = [
    "Budget",
    "Clock",
    "CudaEvents",
    "Run",
    "WallClock",
    "cautions",
    "clock_for",
    "compare",
    "describe_cell",
    "noise",
    "profile",
    "ratio_interval",
    "this_machine",
    "verdict",
]
