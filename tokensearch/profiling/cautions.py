"""Reasons to distrust profiles: those of any timing, and instruments in contradiction."""

from collections.abc import Sequence
from statistics import median, quantiles

from tokensearch.measure import find_cautions
from tokensearch.records.measurements import Caution
from tokensearch.records.profile import Profile
from tokensearch.stats.interval import Interval

# What a stamped pass may take beyond a plain one. Measured on two CPU cores: 0.5 % of a pass of
# DeiT-S at batch 8, up to 4 % of one of DeiT-T at batch 1, whose operators are that short.
STAMPING = 0.05


def profile_cautions(baseline: Profile, candidate: Profile) -> tuple[Caution, ...]:
    """Return the reasons to distrust two profiles beside each other; of one profile, give it twice.

    Stamps, and the profiler's kernels on a GPU, are held against the clock.
    """
    conditions = baseline.conditions if baseline.session == candidate.session else None
    cautions = find_cautions(baseline.plain, candidate.plain, conditions)
    both = (baseline, candidate)
    checks = {
        Caution.PROFILER_DISAGREES: any(map(is_contradicted, both)),
        Caution.NO_KERNELS: any(map(lacks_kernels, both)),
    }
    return (*cautions, *(caution for caution, holds in checks.items() if holds))


def is_contradicted(profile: Profile) -> bool:
    """Whether the clock says another thing than the stamps, or less than the kernels take."""
    clock = _middle(profile.plain.passes_ms)
    wide = Interval(clock.value, clock.low * (1 - STAMPING), clock.high * (1 + STAMPING))
    apart = not wide.overlaps(_middle(profile.stamped_ms))
    return apart or (profile.busy_ms is not None and profile.busy_ms > wide.high)


def lacks_kernels(profile: Profile) -> bool:
    """Whether passes on a GPU were traced without a kernel: another tool may hold the tracer."""
    return profile.cell.device != "cpu" and bool(profile.traced_ms) and profile.busy_ms is None


def _middle(passes_ms: Sequence[float]) -> Interval:
    """The interval that holds the middle half of the passes."""
    if len(passes_ms) < 2:
        return Interval(passes_ms[0], passes_ms[0], passes_ms[0])
    low, _, high = quantiles(passes_ms, n=4, method="inclusive")
    return Interval(median(passes_ms), low, high)
