"""Answer another target, or another cell, from the trials of a finished run."""

import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from tokensearch.costs import load_costs, save_costs
from tokensearch.costs.forecast import Forecast
from tokensearch.errors import MeasurementError, RunError
from tokensearch.evaluation.evaluator import ScoredPolicy
from tokensearch.evaluation.latency import PolicyTimer
from tokensearch.front import Point, spread
from tokensearch.measure import TimingBudget
from tokensearch.policy import Objective, Policy, Target
from tokensearch.policy.file import policy_from_json
from tokensearch.progress import ProgressListener
from tokensearch.records.measurements import (
    Accuracy,
    Trial,
    accuracy_from_json,
    paired_from_json,
    to_json,
    trial_from_json,
)
from tokensearch.records.run_folder import RunFolder
from tokensearch.runtime import check
from tokensearch.search.early_stopping import trial_value
from tokensearch.search.finalists.finalist import Finalist, is_published, target_ratio
from tokensearch.search.finalists.result import (
    baseline_drift,
    select_finalists_for,
    warn_launch_bound,
    write_result,
)
from tokensearch.search.latency_model import make_forecast, pick_mild_to_deep
from tokensearch.search.settings import SearchSettings

# As surely as a run confirms, in half its time: a minute is to hold a sweep and all of them.
BUDGET = TimingBudget(warmup=3, first_look=30, max_rounds=100, seconds=3.0, precision=0.01)
# Members confirmed: the best predicted to meet the target, those that may miss it by the error of
# the prediction, and some of the whole front.
UNDER, DOUBTFUL, ON_FRONT = 3, 2, 4
COUNTED = "complete", "raced", "out_of_reach", "duplicate"  # trials: none is made


@dataclass(frozen=True, slots=True)
class Known:
    """A policy whose accuracies are known from an earlier run."""

    trial: Trial
    policy: Policy
    ratio: float  # as confirmed then
    select: Accuracy
    report: ScoredPolicy


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished run: what it was asked, and every policy with accuracies on all splits."""

    folder: RunFolder
    document: Mapping[str, Any]
    settings: SearchSettings
    known: tuple[Known, ...]
    share: float  # its target, of the baseline's latency

    @property
    def unreduced(self) -> Policy:
        """The baseline, which every run confirms."""
        return next(one.policy for one in self.known if not one.policy.reduces)


def read_finished(folder: RunFolder) -> Finished:
    """Read a finished run.

    Raises:
        RunError: The search has not ended, or its files are damaged or do not belong together.
        PolicyError: A policy is damaged.
    """
    document = folder.require_run()
    if document.get("result") is None:
        raise RunError(
            f"the search in {folder.path} has not ended; its own command goes on with it"
        )
    if "retargeted" in document:
        raise RunError(
            f"{folder.path} was itself retargeted from {document['retargeted']}; name that folder"
        )
    found = _finished(folder, document)
    if all(one.policy.reduces for one in found.known):
        raise RunError(f"{folder.run} lacks the baseline among its finalists")
    return found


def check_place(source: RunFolder, folder: RunFolder) -> None:
    """Refuse a folder where another run would be overwritten."""
    if folder.path.resolve() == source.path.resolve():
        raise RunError(f"{folder.path} is the run itself; name another folder with --out")
    folder.check()
    before = folder.read_run()
    if before is not None and "retargeted" not in before:
        raise RunError(f"{folder.path} holds a run of its own; name another folder with --out")


def worth_timing(
    known: Sequence[Known], forecast: Forecast, *, limit: float, objective: Objective
) -> tuple[Known, ...]:
    """Return the baseline, the best that may meet the target, and some of the front.

    limit  the target as a share of the baseline's latency
    """
    off = forecast.margin
    values = [trial_value(one.select, objective) for one in known]
    ratios = [forecast.ratio(one.policy) for one in known]
    best = sorted(range(len(known)), key=lambda place: -values[place])
    under = [place for place in best if ratios[place] <= limit]
    chosen = [place for place in best if not known[place].policy.reduces]
    chosen += under[:UNDER]
    chosen += [place for place in under if ratios[place] <= limit * (1 - off)][:1]
    chosen += [place for place in best if limit < ratios[place] <= limit * (1 + off)][:DOUBTFUL]
    chosen += [place for place in under if is_published(known[place].trial)][:1]
    points = [Point(value, ratio) for value, ratio in zip(values, ratios, strict=True)]
    chosen += spread(points, ON_FRONT)
    return tuple(known[place] for place in dict.fromkeys(chosen))


def confirmed_trials(
    known: Sequence[Known], timing: PolicyTimer, objective: Objective, listener: ProgressListener
) -> tuple[Finalist, ...]:
    """Time each afresh; fastest first."""
    listener.stage("confirming schedules of the run by fresh timings", unit="schedules")
    found, began = [], time.monotonic()
    for done, one in enumerate(known, 1):
        comparison = timing.time(one.policy, BUDGET)
        found.append(Finalist(one.trial, one.policy, comparison, one.select, objective))
        listener.progress(
            done=done,
            total=len(known),
            seconds_left=(time.monotonic() - began) / done * (len(known) - done),
            text=f"{comparison.ratio:.2f}x ({one.trial.origin})",
        )
    return tuple(sorted(found, key=lambda one: one.comparison.ratio))


@dataclass(frozen=True)
class Retarget:
    """Another target, in the cell of `timing`, asked of a finished run."""

    source: Finished
    folder: RunFolder  # of its own
    timing: PolicyTimer
    target: Target
    listener: ProgressListener
    command: str

    def run(self) -> Mapping[str, Any]:
        """Answer, and return what run.json then holds.

        Leaves a run folder like that of a search, but for trials and profiles.

        Raises:
            RunError: `folder` is that of another run, or cannot be written.
            PolicyError: The model of `timing` has another geometry than that of the run.
        """
        began = time.monotonic()
        check_place(self.source.folder, self.folder)
        for one in self.source.known:
            check(self.timing.model, one.policy)
        document = self._document() | {"launching": warn_launch_bound(self.timing, self.listener)}
        self.folder.create()
        self.folder.write_run(document)
        result = self._answered(document)
        document = {**document, "result": {**result, "seconds": time.monotonic() - began}}
        self.folder.write_run(document)
        return document

    def _answered(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Time what is worth it, and write front and answer."""
        timing, objective = self.timing, self.source.settings.objective
        self._hand_on_costs()
        reduced = [one.policy for one in self.source.known if one.policy.reduces]
        forecast = make_forecast(timing, self.folder, self.listener, pick_mild_to_deep(reduced))
        self.listener.stage("timing the baseline")
        first = timing.time(self.source.unreduced, BUDGET)
        limit = target_ratio(first, self.target, batch=timing.cell.batch)
        doubt = self._doubt(forecast, limit)
        chosen = worth_timing(self.source.known, forecast, limit=limit, objective=objective)
        finalists = confirmed_trials(chosen, timing, objective, self.listener)
        result = write_result(
            self.folder,
            select_finalists_for(finalists, self.target, batch=timing.cell.batch),
            {one.trial.schedule_hash: one.report for one in chosen},
            cell=timing.cell,
            document=document,
        )
        return {
            **result,
            "cautions": [*result["cautions"], *([] if doubt is None else [doubt])],
            "search_seconds": 0.0,
            "trials": dict.fromkeys(COUNTED, 0),
            "baseline_moved": {"search": 0.0, "finalists": baseline_drift(finalists)},
            "forecast": {"error": forecast.error, "timed": 0},
        }

    def _doubt(self, forecast: Forecast, limit: float) -> str | None:
        """Say so where the run did not search for what is asked now."""
        source, reduced = self.source, [one for one in self.source.known if one.policy.reduces]
        same = source.document["cell"] == to_json(self.timing.cell)
        ratios = [
            MovedCell(one.ratio, one.ratio if same else forecast.ratio(one.policy))
            for one in reduced
        ]
        return read_searched_cell(ratios, source.share).doubt(
            limit, off=forecast.margin, front=source.folder.front
        )

    def _document(self) -> dict[str, Any]:
        """Return what run.json holds while there is no result."""
        cell, document = self.timing.cell, self.source.document
        settings = replace(
            self.source.settings,
            target=self.target,
            device=cell.device,
            batch=cell.batch,
            resolution=cell.resolution,
            backend=cell.backend,
        )
        return {
            **document,
            "settings": settings.to_json(),
            "budget": {"trials": 0, "seconds": None},
            "cell": to_json(cell),
            "command": self.command,
            "retargeted": str(self.source.folder.path),
            "result": None,
        }

    def _hand_on_costs(self) -> None:
        """Take the run's own cost table if it is of this cell: a sweep is saved."""
        costs = self.source.folder.costs
        with suppress(MeasurementError):  # one that cannot be read is swept again
            if costs.is_file() and (table := load_costs(costs)).cell == self.timing.cell:
                save_costs(table, self.folder.costs)


def _finished(folder: RunFolder, document: Mapping[str, Any]) -> Finished:
    settings, result = document["settings"], document["result"]
    trials, known = _trials(folder), []
    for one in result["finalists"]:
        name = one["schedule_hash"]
        if name not in trials:
            raise RunError(f"{folder.trials} lacks the trial {name}, which {folder.run} names")
        known.append(_known(one, trials[name]))
    return Finished(
        folder,
        document,
        SearchSettings.from_json(settings),
        tuple(known),
        result["limit_ms"] / result["baseline_ms"],
    )


def _trials(folder: RunFolder) -> dict[str, Trial]:
    """Every trial by its schedule; RunError where a line is none."""
    trials = [trial_from_json(line) for line in folder.read_trials()]
    return {trial.schedule_hash: trial for trial in trials}


def _known(one: Mapping[str, Any], trial: Trial) -> Known:
    return Known(
        trial,
        replace(policy_from_json(one["policy"]), evidence=()),
        float(one["comparison"]["ratio"]),
        accuracy_from_json(one["select"]),
        ScoredPolicy(accuracy_from_json(one["report"]), paired_from_json(one["paired"])),
    )


class MovedCell(NamedTuple):
    """A reduced policy's latency, as a share of the baseline's, in two cells."""

    then: float  # of the run
    now: float


@dataclass(frozen=True, slots=True)
class SearchedCell:
    """What a run searched, as shares of the baseline's latency."""

    fastest: float  # that it holds
    slowest: float  # that it would have proposed: its target

    def doubt(self, limit: float, *, off: float, front: Path) -> str | None:
        """Say what to do where a target lies outside; None where it does not.

        limit  the target
        off    relative error of what is known of the fastest and the slowest
        """
        again = f"search with `tokensearch run --from {shlex.quote(str(front))}`"
        if limit < self.fastest * (1 - off):
            return (
                f"the run holds nothing faster than about {self.fastest:.2f}x, and {limit:.2f}x "
                f"is asked now: {again}"
            )
        if self.slowest * (1 + off) < limit < 1:
            return (
                f"the run proposed nothing slower than about {self.slowest:.2f}x, and {limit:.2f}x "
                f"is allowed now, where more accurate schedules may be: {again}"
            )
        return None


def read_searched_cell(moved: Sequence[MovedCell], share: float) -> SearchedCell:
    """Carry what a run searched over to the cell of its policies' new latencies.

    share  the run's target, in its own cell

    Policies say how much of a reduction is left in the new cell: as a power, so that 1 stays 1.

    >>> read_searched_cell([MovedCell(0.5, 0.25), MovedCell(0.9, 0.81)], share=0.6)
    SearchedCell(fastest=0.25, slowest=0.36)
    """
    powers = [log(one.now) / log(one.then) for one in moved if one.then < 1]
    slowest = share ** median(powers) if powers else share
    return SearchedCell(min((one.now for one in moved), default=1.0), round(slowest, 6))
