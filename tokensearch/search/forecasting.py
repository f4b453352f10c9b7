"""What a run knows of latencies before it tries anything: swept once, kept in its folder."""

from functools import lru_cache

from tokensearch.costs import CostTable, load_costs, save_costs
from tokensearch.costs.forecast import MACS_ERROR, Forecast
from tokensearch.costs.sweep import sweep
from tokensearch.errors import MeasurementError
from tokensearch.policy import Policy, mac_share
from tokensearch.profiling import SPLIT
from tokensearch.run_folder import RunFolder
from tokensearch.search.listener import Listener
from tokensearch.search.timing import Timing

# Of sweeping: what a run of some minutes can spare. It says itself how far off its predictions are.
SWEEP_SECONDS = 20.0
KEPT = 10_000  # predictions: a search asks for some hundred again with every proposal
LEAST_ERROR = 0.01  # a sweep's own estimate from eight schedules may be lucky


def forecast_for(
    timing: Timing, folder: RunFolder, listener: Listener, *, seconds: float = SWEEP_SECONDS
) -> Forecast:
    """Return a forecast by the folder's cost table, which is swept if there is none yet.

    Compiled passes cannot be split: there multiply-accumulates stand in, until the run's own
    timings correct them.
    """
    if timing.cell.backend not in SPLIT:
        return Forecast(mac_share, MACS_ERROR)
    table = _kept(timing, folder) or _swept(timing, folder, listener, seconds)
    return by_table(table)


def by_table(table: CostTable) -> Forecast:
    """Return a forecast by a cost table, of multiply-accumulates for what was not swept."""
    whole_ms = table.predict(Policy(table.model))

    @lru_cache(maxsize=KEPT)
    def ratio(policy: Policy) -> float:
        try:
            return table.predict(policy) / whole_ms
        except MeasurementError:
            return mac_share(policy)

    return Forecast(ratio, max(LEAST_ERROR, table.calibration.error))


def _kept(timing: Timing, folder: RunFolder) -> CostTable | None:
    """Return the table of an earlier process of this run, if it is of the same cell."""
    if not folder.costs.is_file():
        return None
    table = load_costs(folder.costs)
    return table if table.cell == timing.cell else None


def _swept(timing: Timing, folder: RunFolder, listener: Listener, seconds: float) -> CostTable:
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
