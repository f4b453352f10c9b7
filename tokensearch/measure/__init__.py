"""Clocks, paired timing, verdicts, machine and profile: how a callable is timed."""

from tokensearch.measure.attention import attention_of, sdpa_backend
from tokensearch.measure.cautions import find_cautions, self_comparison_caution
from tokensearch.measure.clock import (
    Clock,
    CudaEvents,
    Flushed,
    Run,
    WallClock,
    clock_for,
    warm_device,
)
from tokensearch.measure.launches import measure_launching
from tokensearch.measure.machine import describe_cell, measure_noise, this_machine
from tokensearch.measure.machine_monitor import MachineMonitor
from tokensearch.measure.paired import Budget, compare, compare_samples, with_cautions
from tokensearch.measure.phase_timer import PhaseTimer, columns
from tokensearch.measure.roofline import WorkCounter, measure_ceilings
from tokensearch.measure.rounds import (
    Effort,
    Sample,
    Turn,
    phase_turn,
    time_interleaved,
    whole_pass_turn,
)
from tokensearch.measure.timer_cost import phase_border_ms, subtract_timer_cost, timer_cost_ms
from tokensearch.measure.tracer import peak_bytes
from tokensearch.records.comparability import verdict
from tokensearch.stats.bootstrap import ratio_interval

__all__ = [
    "Budget",
    "Clock",
    "CudaEvents",
    "Effort",
    "Flushed",
    "MachineMonitor",
    "PhaseTimer",
    "Run",
    "Sample",
    "Turn",
    "WallClock",
    "WorkCounter",
    "attention_of",
    "clock_for",
    "columns",
    "compare",
    "compare_samples",
    "describe_cell",
    "find_cautions",
    "measure_ceilings",
    "measure_launching",
    "measure_noise",
    "peak_bytes",
    "phase_border_ms",
    "phase_turn",
    "ratio_interval",
    "sdpa_backend",
    "self_comparison_caution",
    "subtract_timer_cost",
    "this_machine",
    "time_interleaved",
    "timer_cost_ms",
    "verdict",
    "warm_device",
    "whole_pass_turn",
    "with_cautions",
]
