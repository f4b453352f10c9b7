"""Clocks, paired timing, verdicts, machine and profile: how a callable is timed."""

from tokensearch.comparable import verdict
from tokensearch.measure.attention import attention_of, sdpa_backend
from tokensearch.measure.clock import Clock, CudaEvents, Flushed, Run, WallClock, clock_for, heat
from tokensearch.measure.doubts import cautions, doubt_itself
from tokensearch.measure.launching import launching
from tokensearch.measure.machine import describe_cell, noise, this_machine
from tokensearch.measure.paired import Budget, compare, concluded, doubted
from tokensearch.measure.price import border_ms, taken_off_ms, without_borders
from tokensearch.measure.rounds import Effort, Sample, Turn, in_turn, plain, stamped
from tokensearch.measure.stamps import Stamps, columns
from tokensearch.measure.statistics import ratio_interval
from tokensearch.measure.tracer import peak_bytes
from tokensearch.measure.watch import Watch
from tokensearch.measure.work import Counting, ceilings

__all__ = [
    "Budget",
    "Clock",
    "Counting",
    "CudaEvents",
    "Effort",
    "Flushed",
    "Run",
    "Sample",
    "Stamps",
    "Turn",
    "WallClock",
    "Watch",
    "attention_of",
    "border_ms",
    "cautions",
    "ceilings",
    "clock_for",
    "columns",
    "compare",
    "concluded",
    "describe_cell",
    "doubt_itself",
    "doubted",
    "heat",
    "in_turn",
    "launching",
    "noise",
    "peak_bytes",
    "plain",
    "ratio_interval",
    "sdpa_backend",
    "stamped",
    "taken_off_ms",
    "this_machine",
    "verdict",
    "without_borders",
]
