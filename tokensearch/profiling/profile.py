"""Profile one policy, or several in turn, in one cell; reasons to distrust what comes out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median, quantiles
from uuid import uuid4

import torch
from torch import Tensor, nn

from tokensearch.errors import MeasurementError
from tokensearch.measure import (
    MachineMonitor,
    PhaseTimer,
    Sample,
    TellRounds,
    TimingBudget,
    Turn,
    attention_of,
    clock_for,
    columns,
    find_cautions,
    measure_ceilings,
    peak_bytes,
    phase_border_ms,
    tell_nobody,
    time_interleaved,
    timer_cost_ms,
    warm_device,
)
from tokensearch.measure.tracer import trace_passes
from tokensearch.policy import Policy, changes_sizes, check_static
from tokensearch.policy.file import policy_to_json
from tokensearch.profiling.passes import SPLIT, ProfilePasses, passes
from tokensearch.records.measurements import REPLAYED, Caution, Cell, Latency
from tokensearch.records.profile import Ceilings, PhaseTime, Profile
from tokensearch.stats.interval import Interval

# What a stamped pass may take beyond a plain one. Measured on two CPU cores: 0.5 % of a pass of
# DeiT-S at batch 8, up to 4 % of one of DeiT-T at batch 1, whose operators are that short.
STAMPING = 0.05
TRACED_PASSES = 5  # few: traces grow by a megabyte a pass, and viewers choke on large ones


@dataclass(frozen=True, slots=True)
class ProfilePlan:
    """How much is measured."""

    budget: TimingBudget
    traced_passes: int = TRACED_PASSES  # 0: no operators, no kernels
    roofline: bool = True  # count work, and measure this machine's ceilings
    seed: int = 0


def profile(
    model: nn.Module,
    policies: Mapping[str, Policy],
    *,
    images: Tensor,
    cell: Cell,
    plan: ProfilePlan,
    folder: Path | None = None,
    enough: Callable[[tuple[Profile, ...]], bool] = lambda _: False,
    tell: TellRounds = tell_nobody,
    stage: Callable[[str], None] = lambda _: None,
) -> tuple[Profile, ...]:
    """Profile `model` under each of `policies`, by name, in turn with one another.

    images   (B, 3, rows, columns) on the cell's device, in its number type
    folder   where the profiler leaves its traces; None for nowhere
    enough   asked now and then with the profiles so far; ends the timing when true
    tell     hears after every round how many have been counted, and the seconds they took
    stage    hears what comes once the timing is over

    MeasurementError for a cell whose caches are emptied: only whole passes can be timed so.
    """
    if cell.cache != "warm":
        raise MeasurementError(
            f"a profile is of passes with warm caches; the cell has cache {cell.cache!r}, which "
            "only a comparison of whole passes can time"
        )
    for policy in policies.values():
        check_static(policy, "a profile")
    blank = _make_blanks(model, policies, cell)
    with torch.inference_mode(), ExitStack() as stack:
        ready = [
            stack.enter_context(passes(model, policy, images, cell)) for policy in policies.values()
        ]
        heated = warm_device(ready[0].whole, clock_for(torch.device(cell.device)))
        price_ms, warmup = _price_ms(cell), heated + plan.budget.warmup

        def filled(taken: list[list[Sample]]) -> tuple[Profile, ...]:
            dealt = zip(blank, ready, _split_samples(taken, ready), strict=True)
            return tuple(
                subtract_border_cost(_fill_timings(*each, warmup), price_ms) for each in dealt
            )

        def looked(taken: list[list[Sample]]) -> bool:
            watch.look()
            return enough(filled(taken))

        turns = [turn for each in ready for turn in _turns(each)]
        watch = MachineMonitor(torch.device(cell.device))
        watch.start()
        taken = time_interleaved(
            turns,
            plan.budget,
            seed=plan.seed,
            enough=looked,
            tell=tell,
        )
        conditions = watch.stop()
        stage("counting work and tracing operators")
        top = _ceilings(cell) if plan.roofline else None
        return tuple(
            _add_trace(_add_work(replace(each, conditions=conditions), of, top), of, plan, folder)
            for each, of in zip(filled(taken), ready, strict=True)
        )


def _make_blanks(model: nn.Module, policies: Mapping[str, Policy], cell: Cell) -> list[Profile]:
    """Profiles of one session, of which only the question is known."""
    session = uuid4().hex
    return [
        _make_blank(
            name, policy, cell, session=session, sdpa=attention_of(model, masked=_masks(policy))
        )
        for name, policy in policies.items()
    ]


def _make_blank(name: str, policy: Policy, cell: Cell, *, session: str, sdpa: str) -> Profile:
    return Profile(
        name=name,
        model=policy.model.name,
        schedule_hash=policy.schedule_hash,
        patch_tokens=policy.patch_tokens_per_block,
        prefix_tokens=policy.model.prefix_tokens,
        policy=policy_to_json(policy),
        cell=cell,
        session=session,
        plain=Latency((), 0),
        stamped=(),
        sdpa=sdpa,
    )


def _masks(policy: Policy) -> bool:
    """Whether attention gets a bias, which may take it off its fast path."""
    return policy.proportional_attention and any(map(changes_sizes, policy.steps))


def _turns(of: ProfilePasses) -> tuple[Turn, ...]:
    floor = () if of.floor is None or of.floor_plain is None else (of.floor, of.floor_plain)
    return (of.plain, of.stamped, *floor)


def _split_samples(
    taken: list[list[Sample]], ready: Sequence[ProfilePasses]
) -> Iterator[list[list[Sample]]]:
    """Give every profile the samples of its own turns."""
    start = 0
    for passes_of in ready:
        stop = start + len(_turns(passes_of))
        yield taken[start:stop]
        start = stop


def _fill_timings(
    blank: Profile, of: ProfilePasses, taken: list[list[Sample]], warmup: int
) -> Profile:
    plain, stamped, *floor = taken
    timed = replace(blank, plain=_latency(plain, warmup), stamped=_phases(stamped, of.stamps))
    if not floor:
        return timed
    split, whole = floor
    return replace(
        timed, floor=_phases(split, of.floor_stamps), floor_plain=_latency(whole, warmup)
    )


def _latency(samples: list[Sample], warmup: int) -> Latency:
    return Latency(tuple(sample.ms for sample in samples), warmup)


def _phases(samples: list[Sample], stamps: PhaseTimer) -> tuple[PhaseTime, ...]:
    parts, shares = columns([sample.parts_ms for sample in samples]), stamps.shares()
    return tuple(
        PhaseTime(*place, passes_ms, shares.get(place, 0.0)) for place, passes_ms in parts.items()
    )


def subtract_border_cost(timed: Profile, most_ms: float) -> Profile:
    """Take the price of its borders off every phase, though of no phase more than its mean.

    most_ms  price of a border that nothing hides
    """
    borders = sum(one.borders for one in timed.stamped)
    each_ms = timer_cost_ms(timed.pass_ms - timed.plain_ms, borders, most_ms)
    floor = replace(timed, stamped=timed.floor)  # with a middle of its own

    def less(of: Profile) -> tuple[PhaseTime, ...]:
        return tuple(_subtract_border(one, each_ms, of.middle) for one in of.stamped)

    return replace(
        timed, border_ms=each_ms, stamped=less(timed), floor=less(floor) if timed.floor else ()
    )


def _subtract_border(phase: PhaseTime, each_ms: float, middle: Sequence[int]) -> PhaseTime:
    off_ms = min(phase.borders * each_ms, fmean(phase.passes_ms[number] for number in middle))
    return replace(phase, passes_ms=tuple(ms - off_ms for ms in phase.passes_ms))


def _add_work(timed: Profile, of: ProfilePasses, top: Ceilings | None) -> Profile:
    """Add what a pass computes and moves. Counting disturbs the clock, so it comes after."""
    if top is None:
        return timed
    with of.counting:
        of.counted()
    return replace(timed, work=of.counting.work, ceilings=top)


def _add_trace(
    timed: Profile, of: ProfilePasses, plan: ProfilePlan, folder: Path | None
) -> Profile:
    """Add operators, kernels and memory. Tracing slows down what follows, so it comes last."""
    if not plan.traced_passes:
        return timed
    device, replays = torch.device(timed.cell.device), timed.cell.backend in REPLAYED
    seen = trace_passes(
        of.traced, name=timed.name, device=device, passes=plan.traced_passes, folder=folder
    )
    return replace(
        timed,
        operators=seen.operators,
        traced_ms=seen.passes_ms,
        # A replay allocates nothing: its memory was reserved at the capture.
        peak_bytes=None if replays else peak_bytes(of.whole, device),
    )


def _price_ms(cell: Cell) -> float:
    """Price of a border that nothing hides; 0 where passes have none."""
    if cell.backend not in SPLIT:
        return 0.0
    return phase_border_ms(torch.device(cell.device), captured=cell.backend == "cudagraph")


def _ceilings(cell: Cell) -> Ceilings:
    device = torch.device(cell.device)
    return measure_ceilings(device, getattr(torch, cell.dtype), clock_for(device))


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
    clock = _middle_half(profile.plain.passes_ms)
    wide = Interval(clock.value, clock.low * (1 - STAMPING), clock.high * (1 + STAMPING))
    apart = not wide.overlaps(_middle_half(profile.stamped_ms))
    return apart or (profile.busy_ms is not None and profile.busy_ms > wide.high)


def lacks_kernels(profile: Profile) -> bool:
    """Whether passes on a GPU were traced without a kernel: another tool may hold the tracer."""
    return profile.cell.device != "cpu" and bool(profile.traced_ms) and profile.busy_ms is None


def _middle_half(passes_ms: Sequence[float]) -> Interval:
    """The interval that holds the middle half of the passes."""
    if len(passes_ms) < 2:
        return Interval(passes_ms[0], passes_ms[0], passes_ms[0])
    low, _, high = quantiles(passes_ms, n=4, method="inclusive")
    return Interval(median(passes_ms), low, high)
