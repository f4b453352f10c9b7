"""The latency forecast that a run starts with: from a cost sweep, stored in its folder."""

import random
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache

from tokensearch.costs import CostTable, load_costs, save_costs
from tokensearch.costs.design import DEEP, MILD
from tokensearch.costs.forecast import LEAST_TIMED, MACS_ERROR, Forecast, forecast_from_timings
from tokensearch.costs.sweep import PASSES_PER_ROUND, sweep
from tokensearch.errors import ExportError, MeasurementError
from tokensearch.evaluation.latency import PolicyTimer
from tokensearch.policy import ModelSpec, Policy, mac_share
from tokensearch.policy.rescale import match_latency
from tokensearch.profiling import SPLIT
from tokensearch.progress import ProgressListener
from tokensearch.records.measurements import REPLAYED
from tokensearch.records.run_folder import RunFolder
from tokensearch.search.early_stopping import TRIAL_BUDGET
from tokensearch.search.space.space import SearchSpace

# What a run of some minutes can spare. The sweep estimates the error of its own predictions.
SWEEP_SECONDS = 20.0
LEAST_ROUNDS = 4  # of a sweep, each with all kinds of passes
RUNS_PER_CAPTURE = 10  # passes that a captured one stands for: warm-up, capture and replays
CACHED_RATIOS = 10_000  # a search asks for some hundred again with every proposal
# Eight shares from 0 to 1. The first few are spread as well: there may be no time for more.
SPREAD = tuple(eighth / 7 for eighth in (0, 7, 3, 5, 1, 6, 2, 4))
DRAWS = 8  # for each share: late steps and pools alone leave too much for the deep schedules
MIN_ERROR = 0.01  # a sweep's own estimate from eight schedules may be lucky


def make_forecast(
    timing: PolicyTimer,
    folder: RunFolder,
    listener: ProgressListener,
    first: Sequence[Policy] = (),
    *,
    seconds: float = SWEEP_SECONDS,
    pass_s: float = 0.0,
    asked: Collection[str] = (),
) -> Forecast:
    """Return a forecast by the folder's cost table, which is swept if there is none yet.

    Compiled passes cannot be split by block. For these the forecast is fitted to timings of whole
    policies: as many of `first` as the seconds allow, four at least. Where the seconds do not
    suffice for a few rounds of a sweep, multiply-accumulates are believed until something is timed.

    pass_s  seconds of a pass of the baseline, if they bound the sweep
    asked   operators and scores that a sweep leaves out unless somebody asks for them
    """
    if timing.cell.backend not in SPLIT:
        return forecast_from_timings(list(_time_policies(timing, listener, first, seconds)))
    table = _load_table(timing, folder)
    if table is None:
        runs = RUNS_PER_CAPTURE if timing.cell.backend in REPLAYED else 1
        if pass_s * runs * PASSES_PER_ROUND * LEAST_ROUNDS > seconds:
            listener.note(
                f"{seconds:.0f} s are too few for a sweep: latencies are predicted from "
                f"multiply-accumulates until policies are timed"
            )
            return Forecast(mac_share, MACS_ERROR)
        table = _sweep_costs(timing, folder, listener, seconds, asked=asked)
    return forecast_from_table(table)


def pick_mild_to_deep(policies: Iterable[Policy]) -> list[Policy]:
    """Return a few of `policies`, evenly over the work they leave: both ends come first."""
    ordered = sorted(policies, key=mac_share)
    if len(ordered) <= 1:
        return ordered
    indices = (round(share * (len(ordered) - 1)) for share in SPREAD)
    return [ordered[index] for index in dict.fromkeys(indices)]


def draw_policies(space: SearchSpace, model: ModelSpec, seed: int) -> list[Policy]:
    """Draw a few schedules that a search may propose, from mild to deep."""
    generator, dimensions = random.Random(seed), space.dimensions(model)

    def draw(share: float) -> Policy:
        schedule = space.build(
            {name: generator.choice(values) for name, values in dimensions.items()}, model
        )
        return space.build(space.nearest(match_latency(schedule, share, mac_share), model), model)

    def nearest(share: float) -> Policy:
        return min((draw(share) for _ in range(DRAWS)), key=lambda one: abs(mac_share(one) - share))

    drawn = [nearest(MILD + share * (DEEP - MILD)) for share in SPREAD]
    return [policy for policy in dict.fromkeys(drawn) if policy.reduces]


def _time_policies(
    timing: PolicyTimer, listener: ProgressListener, policies: Sequence[Policy], seconds: float
) -> Iterator[tuple[Policy, float]]:
    """Time policies until the seconds are spent; yield each with its latency ratio."""
    listener.stage("timing schedules from mild to deep", unit="schedules")
    start_s = time.monotonic()
    for done, policy in enumerate(policies):
        spent_s = time.monotonic() - start_s
        if done >= LEAST_TIMED and spent_s > seconds:
            break
        try:
            ratio = timing.time(policy, TRIAL_BUDGET).ratio
        except ExportError:  # which fails alone, as trials do
            continue
        yield policy, ratio
        listener.progress(done=done + 1, total=len(policies), seconds_left=None, text="")


def forecast_from_table(table: CostTable) -> Forecast:
    """Return a forecast by a cost table, by multiply-accumulates for what was not swept."""
    baseline_ms = table.predict(Policy(table.model))

    @lru_cache(maxsize=CACHED_RATIOS)
    def ratio(policy: Policy) -> float:
        try:
            return table.predict(policy) / baseline_ms
        except MeasurementError:
            return mac_share(policy)

    error, worst = table.calibration.error, table.calibration.worst
    return Forecast(ratio, max(MIN_ERROR, error), known_worst=worst)


def _load_table(timing: PolicyTimer, folder: RunFolder) -> CostTable | None:
    """Return the table of an earlier process of this run, None if its cell is another."""
    if not folder.costs.is_file():
        return None
    table = load_costs(folder.costs)
    return table if table.cell == timing.cell else None


def _sweep_costs(
    timing: PolicyTimer,
    folder: RunFolder,
    listener: ProgressListener,
    seconds: float,
    *,
    asked: Collection[str],
) -> CostTable:
    listener.stage("sweeping what token counts and operators cost", unit="s")
    table = sweep(
        timing.model,
        images=timing.images,
        cell=timing.cell,
        seconds=seconds,
        seed=timing.seed,
        asked=asked,
        least_rounds=LEAST_ROUNDS,
        listener=listener,
    )
    save_costs(table, folder.costs)
    return table
