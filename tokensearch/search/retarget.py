"""Another target, cell or machine for a finished run: only time is taken, for the rest is known."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokensearch.costs.forecast import Forecast
from tokensearch.errors import RunError
from tokensearch.front import Point, spread
from tokensearch.measure import Budget
from tokensearch.policy import Objective, Policy, Target
from tokensearch.policy.file import policy_from_json
from tokensearch.records import (
    Accuracy,
    Trial,
    accuracy_from_json,
    paired_from_json,
    to_json,
    trial_from_json,
)
from tokensearch.run_folder import RunFolder
from tokensearch.search.evaluator import Scored
from tokensearch.search.finalists import Finalist, limit_of
from tokensearch.search.forecasting import forecast_for
from tokensearch.search.heat import worth_of
from tokensearch.search.listener import Listener
from tokensearch.search.outcome import concluded, judged, moved
from tokensearch.search.timing import Timing
from tokensearch.search.trials import MARGIN

# As surely as a run confirms, in half its time: a minute is to hold a sweep and all of them.
BUDGET = Budget(warmup=3, min_pairs=30, max_pairs=100, seconds=3.0, precision=0.01)
NEAR_TARGET, ON_FRONT = 3, 4  # members confirmed: the best predicted to meet it, and the rest


@dataclass(frozen=True, slots=True)
class Known:
    """A policy whose accuracies are known from an earlier run."""

    trial: Trial
    policy: Policy
    select: Accuracy
    report: Scored


def known_of(folder: RunFolder) -> tuple[Known, ...]:
    """Return every policy of a finished run that has accuracies on all splits.

    Raises:
        RunError: The run has not ended, or its files do not belong together.
    """
    document = folder.read_run()
    if document is None or document["result"] is None:
        raise RunError(f"{folder.path} holds no finished run, whose accuracies could be used again")
    trials = {line["schedule_hash"]: line for line in folder.read_trials()}
    try:
        return tuple(_known(one, trials) for one in document["result"]["finalists"])
    except (KeyError, TypeError) as error:
        raise RunError(
            f"{folder.run} and {folder.trials} do not belong together: {error}"
        ) from error


def worth_timing(
    known: Sequence[Known], forecast: Forecast, *, limit: float, objective: Objective
) -> tuple[Known, ...]:
    """Return the un-reduced model, the best that may meet the target, and some of the front.

    limit  the target as a share of the un-reduced model's latency
    """
    within = limit * (1 + MARGIN * forecast.error)
    values = [worth_of(one.select, objective) for one in known]
    ratios = [forecast.ratio(one.policy) for one in known]
    order = sorted(range(len(known)), key=lambda place: -values[place])
    chosen = [place for place in order if not known[place].policy.reduces]
    chosen += [place for place in order if ratios[place] <= within][:NEAR_TARGET]
    points = [Point(value, ratio) for value, ratio in zip(values, ratios, strict=True)]
    chosen += spread(points, ON_FRONT)
    return tuple(known[place] for place in dict.fromkeys(chosen))


def confirmed(
    known: Sequence[Known], timing: Timing, objective: Objective, listener: Listener
) -> tuple[Finalist, ...]:
    """Time each afresh; fastest first."""
    found = []
    for done, one in enumerate(known, 1):
        comparison = timing.time(one.policy, BUDGET)
        found.append(Finalist(one.trial, one.policy, comparison, one.select, objective))
        listener.progress(
            done=done, total=len(known), seconds_left=None, text=f"{comparison.ratio:.2f}x"
        )
    return tuple(sorted(found, key=lambda one: one.comparison.ratio))


def retargeted(
    source: RunFolder,
    folder: RunFolder,
    timing: Timing,
    target: Target,
    *,
    listener: Listener,
    command: str,
) -> Mapping[str, Any]:
    """Answer another target, in the cell of `timing`, and return what run.json then holds.

    Leaves a run folder like that of a search, but for trials and profiles.

    Raises:
        RunError: The source is no finished run, or `folder` cannot be written.
    """
    began = time.monotonic()
    known, before = known_of(source), source.read_run()
    assert before is not None  # or nothing were known
    folder.create()
    objective: Objective = before["settings"]["objective"]
    document = document_for(before, target, to_json(timing.cell), command)
    forecast = forecast_for(timing, folder, listener)
    unreduced = next(one for one in known if not one.policy.reduces)
    listener.stage("confirming what may meet the target, by fresh timings")
    first = timing.time(unreduced.policy, BUDGET)
    limit = limit_of(first, target, batch=timing.cell.batch)
    chosen = worth_timing(known, forecast, limit=limit, objective=objective)
    finalists = confirmed(chosen, timing, objective, listener)
    verdict = judged(finalists, target, batch=timing.cell.batch)
    reports = {one.trial.schedule_hash: one.report for one in chosen}
    result = concluded(folder, verdict, reports, cell=timing.cell, document=document)
    seconds = time.monotonic() - began
    document["result"] = {
        **result,
        "search_seconds": 0.0,
        "seconds": seconds,
        "trials": {"complete": 0, "raced": 0, "ruled_out": 0, "out_of_reach": 0, "duplicate": 0},
        "baseline_moved": {"search": 0.0, "finalists": moved(finalists)},
        "forecast": {"error": forecast.error, "timed": 0},
    }
    folder.write_run(document)
    return document


def document_for(
    source: Mapping[str, Any], target: Target, cell: Mapping[str, Any], command: str
) -> dict[str, Any]:
    """Return what run.json holds of a retargeted run, but for its result."""
    settings = {
        **source["settings"],
        "target": target.text,
        "device": cell["device"],
        "batch": cell["batch"],
        "backend": cell["backend"],
    }
    return {**source, "settings": settings, "cell": dict(cell), "command": command, "result": None}


def _known(one: Mapping[str, Any], trials: Mapping[str, Mapping[str, Any]]) -> Known:
    return Known(
        trial_from_json(trials[one["schedule_hash"]]),
        replace(policy_from_json(one["policy"]), evidence=()),
        accuracy_from_json(one["select"]),
        Scored(accuracy_from_json(one["report"]), paired_from_json(one["paired"])),
    )
