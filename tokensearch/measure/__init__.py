"""Clocks, interleaved timing, verdicts, machine and profile: how a callable is timed."""

from tokensearch.measure.attention import attention_of, sdpa_backend
from tokensearch.measure.cautions import (
    add_self_comparison_caution,
    deciding_cautions,
    find_cautions,
)
from tokensearch.measure.clock import (
    Clock,
    CudaEvents,
    Flushed,
    Run,
    WallClock,
    clock_for,
    warm_device,
)
from tokensearch.measure.interleaved import (
    Sample,
    TellRounds,
    TimingBudget,
    Turn,
    make_pass_turn,
    make_phase_turn,
    tell_nobody,
    time_interleaved,
)
from tokensearch.measure.launches import measure_launching
from tokensearch.measure.machine import (
    describe_cell,
    describe_environment,
    measure_noise,
    this_machine,
)
from tokensearch.measure.machine_monitor import MachineMonitor
from tokensearch.measure.paired import (
    add_cautions,
    candidate_ms,
    compare,
    compare_samples,
    median_interval,
    note_comparison,
)
from tokensearch.measure.phase_timer import PhaseTimer, columns
from tokensearch.measure.roofline import WorkCounter, measure_ceilings
from tokensearch.measure.timer_cost import phase_border_ms, subtract_timer_cost, timer_cost_ms
from tokensearch.measure.tracer import peak_bytes
from tokensearch.records.comparability import verdict
from tokensearch.stats.bootstrap import bootstrap_ratio

__all__ = [
    "Clock",
    "CudaEvents",
    "Flushed",
    "MachineMonitor",
    "PhaseTimer",
    "Run",
    "Sample",
    "TellRounds",
    "TimingBudget",
    "Turn",
    "WallClock",
    "WorkCounter",
    "add_cautions",
    "add_self_comparison_caution",
    "attention_of",
    "bootstrap_ratio",
    "candidate_ms",
    "clock_for",
    "columns",
    "compare",
    "compare_samples",
    "deciding_cautions",
    "describe_cell",
    "describe_environment",
    "find_cautions",
    "make_pass_turn",
    "make_phase_turn",
    "measure_ceilings",
    "measure_launching",
    "measure_noise",
    "median_interval",
    "note_comparison",
    "peak_bytes",
    "phase_border_ms",
    "sdpa_backend",
    "subtract_timer_cost",
    "tell_nobody",
    "this_machine",
    "time_interleaved",
    "timer_cost_ms",
    "verdict",
    "warm_device",
]
