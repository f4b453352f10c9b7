"""What a run knows of latencies before it tries anything: swept once, kept in its folder."""

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from tokensearch.costs import CostTable, load_costs, save_costs
from tokensearch.costs.design import DEEP, MILD
from tokensearch.costs.forecast import LEAST_TIMED, Forecast
from tokensearch.costs.from_timings import forecast_from_timings
from tokensearch.costs.match_latency import match_latency
from tokensearch.costs.sweep import sweep
from tokensearch.errors import MeasurementError
from tokensearch.evaluation.latency import PolicyTimer
from tokensearch.policy import ModelSpec, Policy, mac_share
from tokensearch.profiling import SPLIT
from tokensearch.progress import ProgressListener
from tokensearch.records.run_folder import RunFolder
from tokensearch.search.early_stopping import TRIAL_BUDGET
from tokensearch.search.space.space import SearchSpace

# Of sweeping: what a run of some minutes can spare. It says itself how far off its predictions are.
SWEEP_SECONDS = 20.0
KEPT = 10_000  # predictions: a search asks for some hundred again with every proposal
# Eight places from 0 to 1, whose first few are spread as well: there may be time for no more.
SPREAD = tuple(place / 7 for place in (0, 7, 3, 5, 1, 6, 2, 4))
DRAWS = 8  # for each: late sites and pools alone leave too much for the deep ones
LEAST_ERROR = 0.01  # a sweep's own estimate from eight schedules may be lucky


def make_forecast(
    timing: PolicyTimer,
    folder: RunFolder,
    listener: ProgressListener,
    first: Sequence[Policy] = (),
    *,
    seconds: float = SWEEP_SECONDS,
) -> Forecast:
    """Return a forecast by the folder's cost table, which is swept if there is none yet.

    Compiled passes cannot be split: there policies are timed before anything is judged, as many of
    `first` as the seconds allow, four at least.
    """
    if timing.cell.backend not in SPLIT:
        return forecast_from_timings(list(_timed(timing, listener, first, seconds)))
    table = _kept(timing, folder) or _swept(timing, folder, listener, seconds)
    return forecast_from_table(table)


def pick_mild_to_deep(policies: Iterable[Policy]) -> list[Policy]:
    """Return a few of `policies`, evenly over what work they leave: both ends come first."""
    ordered = sorted(policies, key=mac_share)
    if len(ordered) <= 1:
        return ordered
    places = (round(share * (len(ordered) - 1)) for share in SPREAD)
    return [ordered[place] for place in dict.fromkeys(places)]


def draw_policies(space: SearchSpace, model: ModelSpec, seed: int) -> list[Policy]:
    """Draw a few schedules of the space, from mild to deep: what a search may propose."""
    dice, dimensions = random.Random(seed), space.dimensions(model)

    def draw(share: float) -> Policy:
        shape = space.build({name: dice.choice(of) for name, of in dimensions.items()}, model)
        return space.build(space.nearest(match_latency(shape, share, mac_share), model), model)

    def nearest(share: float) -> Policy:
        return min((draw(share) for _ in range(DRAWS)), key=lambda one: abs(mac_share(one) - share))

    found = [nearest(MILD + share * (DEEP - MILD)) for share in SPREAD]
    return [policy for policy in dict.fromkeys(found) if policy.reduces]


def _timed(
    timing: PolicyTimer, listener: ProgressListener, policies: Sequence[Policy], seconds: float
) -> Iterator[tuple[Policy, float]]:
    """Yield ratios to the baseline's latency."""
    listener.stage("timing schedules from mild to deep", unit="schedules")
    start_s = time.monotonic()
    for done, policy in enumerate(policies):
        spent_s = time.monotonic() - start_s
        if done >= LEAST_TIMED and spent_s > seconds:
            break
        yield policy, timing.time(policy, TRIAL_BUDGET).ratio
        listener.progress(done=done + 1, total=len(policies), seconds_left=None, text="")


def forecast_from_table(table: CostTable) -> Forecast:
    """Return a forecast by a cost table, of multiply-accumulates for what was not swept."""
    whole_ms = table.predict(Policy(table.model))

    @lru_cache(maxsize=KEPT)
    def ratio(policy: Policy) -> float:
        try:
            return table.predict(policy) / whole_ms
        except MeasurementError:
            return mac_share(policy)

    error, worst = table.calibration.error, table.calibration.worst
    return Forecast(ratio, max(LEAST_ERROR, error), known_worst=worst)


def _kept(timing: PolicyTimer, folder: RunFolder) -> CostTable | None:
    """Return the table of an earlier process of this run, if it is of the same cell."""
    if not folder.costs.is_file():
        return None
    table = load_costs(folder.costs)
    return table if table.cell == timing.cell else None


def _swept(
    timing: PolicyTimer, folder: RunFolder, listener: ProgressListener, seconds: float
) -> CostTable:
    listener.stage("sweeping what token counts and operators cost", unit="s")
    table = sweep(
        timing.model,
        images=timing.images,
        cell=timing.cell,
        seconds=seconds,
        seed=timing.seed,
        listener=listener,
    )
    save_costs(table, folder.costs)
    return table
