"""What `tokensearch profile` prints: where a pass spends its time, and how near its ceilings."""

from collections import defaultdict
from collections.abc import Iterator
from statistics import fmean

from rich.console import Group, RenderableType
from rich.text import Text

from tokensearch.records.launch_bound import WAY_OUT
from tokensearch.records.measurements import to_json
from tokensearch.records.profile import PHASES, REDUCING, Phase, Profile
from tokensearch.report import text
from tokensearch.report.diff.operators import operator_table
from tokensearch.report.diff.sentences import launch_state_of
from tokensearch.report.phases import PHASE_NAMES
from tokensearch.report.run.tables import cell_line
from tokensearch.report.table import ReportTable, table_to_rich

MEGABYTE = 1e6


def profile_lines(profile: Profile) -> RenderableType:
    """Return a profile as a console shows it."""
    parts: list[RenderableType] = [
        Text(f"{text.plain(profile.name)} on {cell_line(to_json(profile.cell))}"),
        *(Text(line) for line in facts(profile)),
        table_to_rich(profile_phase_table(profile)),
        table_to_rich(profile_block_table(profile)),
    ]
    if profile.operators:
        parts.append(
            table_to_rich(operator_table(profile.operators, whole_ms=fmean(profile.traced_ms)))
        )
    return Group(*parts)


def facts(profile: Profile) -> Iterator[str]:
    """What holds for the whole pass, in sentences."""
    plain_ms = profile.plain.median_ms
    yield (
        f"A pass takes {text.ms(plain_ms)}, {text.rate(profile.cell.batch, plain_ms)}, by the "
        f"median of {text.count(len(profile.plain.passes_ms))}. Times of phases are means of the "
        f"middle half of passes that are split, {text.ratio(profile.pass_ms / profile.plain_ms)} "
        f"as long as others; {text.percent(profile.unknown_ms / profile.pass_ms)} belong to no "
        "phase."
    )
    if profile.tracing is not None and profile.tracing > 1:
        yield (
            f"Under the PyTorch profiler it takes {text.ratio(profile.tracing)} as long; operators "
            "below are of such passes."
        )
    if profile.busy_ms is not None:
        share = text.percent(profile.busy_ms / plain_ms)
        yield (
            f"Kernels run for {text.ms(profile.busy_ms)} by the profiler, {share} of the pass by "
            "the device's clock; the rest are gaps between launches."
        )
    if launch_state_of(profile) == "bound":
        yield f"Launch-bound: fewer tokens cannot make it faster; {WAY_OUT}."
    if profile.peak_bytes is not None:
        yield f"It uses {profile.peak_bytes / MEGABYTE:.1f} MB at most beside weights and images."
    if profile.ceilings is not None:
        flop = sum(item.flop for item in profile.work)
        top = profile.ceilings
        yield (
            f"A pass of {text.count(profile.cell.batch, 'image')} needs {flop / 2e9:.2f} GMACs. "
            "Measured here at most: "
            f"{text.three_digits(top.gflop_s)} GFLOP/s of a large product, "
            f"{text.three_digits(top.gbyte_s)} GB/s of a large copy."
        )


def profile_phase_table(profile: Profile) -> ReportTable:
    """Every phase: its time, its share, and how near it comes to what the machine can do."""
    work = _work(profile)
    shown = [(phase, profile.phase_ms(phase)) for phase in PHASES]
    rows = [
        (
            PHASE_NAMES[phase],
            text.ms(ms),
            text.percent(ms / profile.pass_ms),
            *_achieved(profile, work.get(phase), ms),
        )
        for phase, ms in shown
        if ms
    ]
    columns = ("phase", "time", "of the pass", "GFLOP/s", "GB/s", "of the ceiling")
    return ReportTable(columns, rows, numbers=frozenset(columns[1:]))


def _work(profile: Profile) -> dict[Phase, tuple[float, float]]:
    """Operations and bytes by phase; stem and head are counted together, and left out."""
    sums: dict[Phase, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for item in profile.work:
        if item.block is not None:
            flop, moved = sums[item.phase]
            sums[item.phase] = (flop + item.flop, moved + item.bytes)
    return sums


def _achieved(
    profile: Profile, work: tuple[float, float] | None, ms: float
) -> tuple[str, str, str]:
    """Rates, and the time that the nearer ceiling asks for as a share of the time it took."""
    if work is None or profile.ceilings is None:
        return (text.NONE, text.NONE, text.NONE)
    flop, moved = work
    gflop_s, gbyte_s = flop / ms / 1e6, moved / ms / 1e6
    near = max(gflop_s / profile.ceilings.gflop_s, gbyte_s / profile.ceilings.gbyte_s)
    rate = text.three_digits(gflop_s) if flop else text.NONE
    return (rate, text.three_digits(gbyte_s), text.percent(near))


def profile_block_table(profile: Profile) -> ReportTable:
    """Every block: its tokens, and its time by what it was spent on."""
    rows = []
    entering = (profile.policy["model"]["patch_tokens"], *profile.patch_tokens[:-1])
    for block, (before, after) in enumerate(zip(entering, profile.patch_tokens, strict=True)):
        only = range(block, block + 1)
        whole = sum(profile.phase_ms(phase, only) for phase in PHASES)
        spent = sum(profile.phase_ms(phase, only) for phase in REDUCING)
        tokens = (
            text.count(before) if before == after else f"{text.count(before)} → {text.count(after)}"
        )
        rows.append((str(block), tokens, text.ms(whole), text.ms(spent) if spent else text.NONE))
    columns = ("block", "patch tokens", "time", "of it reducing")
    return ReportTable(columns, rows, numbers=frozenset(columns))
