"""Answer another target, or another cell, from the trials of a finished run."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from math import nan

import torch

from tokensearch.costs import load_costs, save_costs
from tokensearch.costs.forecast import Forecast
from tokensearch.errors import MeasurementError, RunError
from tokensearch.evaluation.evaluator import ScoredPolicy
from tokensearch.evaluation.latency import MAX_TOGETHER, PolicyTimer
from tokensearch.front import Point, spread
from tokensearch.measure import deciding_cautions, describe_environment
from tokensearch.measure.cautions import ENOUGH_PASSES
from tokensearch.policy import Goal, Objective, Policy, Target, choose, is_published
from tokensearch.profiling import SPLIT
from tokensearch.progress import ProgressListener
from tokensearch.records.measurements import Comparison, Trial
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import Finalist, ForecastError, RunDocument, RunResult
from tokensearch.records.run_settings import SearchBudget, SearchSettings
from tokensearch.retime.searched_cell import MovedCell, read_searched_cell
from tokensearch.runtime import check_policy
from tokensearch.search.early_stopping import trial_value
from tokensearch.search.finalists.finalist import ConfirmedPolicy, make_figures
from tokensearch.search.finalists.result import (
    make_selection,
    warn_launch_bound,
    write_result,
)
from tokensearch.search.finalists.side_by_side import make_confirm_budget, settle, tell_rounds
from tokensearch.search.latency_model import SWEEP_SECONDS, make_forecast, pick_mild_to_deep
from tokensearch.stats.interval import Interval

# Of passes, for each policy: half of what a run takes. A minute is to hold a sweep and all of them.
RETARGET_SECONDS = 1.5
# Members confirmed: the best predicted to meet the target, those that may miss it by the error of
# the prediction, and some of the whole front.
UNDER, DOUBTFUL, ON_FRONT = 3, 2, 4


@dataclass(frozen=True, slots=True)
class KnownPolicy:
    """A policy whose accuracies are known from an earlier run."""

    trial: Trial
    finalist: Finalist  # as confirmed and quoted then

    @property
    def policy(self) -> Policy:
        """What is timed anew."""
        return self.finalist.policy

    def confirmed(
        self, comparison: Comparison, objective: Objective, *, same_cell: bool
    ) -> ConfirmedPolicy:
        """Return it with a fresh timing; beside it that of the run, if that is of the same cell."""
        before = self.finalist.comparison
        return ConfirmedPolicy(
            self.trial,
            self.policy,
            comparison,
            self.finalist.select,
            self.finalist.choice,
            objective,
            earlier=before if same_cell and not deciding_cautions(before) else None,
        )

    @property
    def report(self) -> ScoredPolicy:
        """What was quoted."""
        return ScoredPolicy(self.finalist.report, self.finalist.paired)


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A finished run: what it was asked, and every policy with accuracies on all splits."""

    folder: RunFolder
    document: RunDocument
    known: tuple[KnownPolicy, ...]

    @property
    def settings(self) -> SearchSettings:
        """What the run was asked for."""
        return self.document.settings

    @property
    def target_ratio(self) -> float:
        """Its target as a share of the baseline's latency."""
        result = self.document.finished
        return 1.0 if result.limit_ms is None else result.limit_ms / result.baseline_ms

    @property
    def baseline(self) -> Policy:
        """The policy without reduction, which every run confirms."""
        return next(known.policy for known in self.known if not known.policy.reduces)


def read_finished(folder: RunFolder) -> FinishedRun:
    """Read a finished run.

    Raises:
        RunError: The search has not ended, or its files are damaged or do not belong together.
        PolicyError: A policy is damaged.
    """
    document = folder.require_run()
    if document.result is None:
        raise RunError(
            f"the search in {folder.path} has not ended; its own command goes on with it"
        )
    if document.retargeted is not None:
        raise RunError(
            f"{folder.path} was itself retargeted from {document.retargeted}; name that folder"
        )
    trials = {trial.schedule_hash: trial for trial in folder.read_trials()}
    for finalist in document.result.finalists:
        name = finalist.schedule_hash
        if name not in trials:
            raise RunError(f"{folder.trials} lacks the trial {name}, which {folder.run} names")
    if all(finalist.policy.reduces for finalist in document.result.finalists):
        raise RunError(f"{folder.run} lacks the baseline among its finalists")
    known = (
        KnownPolicy(
            trials[finalist.schedule_hash],
            replace(finalist, policy=replace(finalist.policy, evidence=())),
        )
        for finalist in document.result.finalists
    )
    return FinishedRun(folder, document, tuple(known))


def check_folder(source: RunFolder, folder: RunFolder) -> None:
    """Refuse a folder where another run would be overwritten."""
    if folder.path.resolve() == source.path.resolve():
        raise RunError(f"{folder.path} is the run itself; name another folder with --out")
    folder.check()
    before = folder.read_run()
    if before is not None and before.retargeted is None:
        raise RunError(f"{folder.path} holds a run of its own; name another folder with --out")


def select_to_time(
    known: Sequence[KnownPolicy],
    forecast: Forecast,
    goal: Goal,
    *,
    target_ratio: float,
    objective: Objective,
) -> tuple[KnownPolicy, ...]:
    """Return the baseline, what may be the answer, and some of the front.

    target_ratio  the target as a share of the baseline's latency
    """
    off = forecast.margin
    values = [trial_value(policy.finalist.select, objective) for policy in known]
    ratios = [forecast.ratio(policy.policy) for policy in known]
    best = sorted(range(len(known)), key=lambda index: -values[index])
    under = [index for index in best if ratios[index] <= target_ratio]
    over = [index for index in best if target_ratio < ratios[index] <= target_ratio * (1 + off)]
    chosen = [index for index in best if not known[index].policy.reduces]
    chosen += under[:UNDER]
    chosen += [index for index in under if ratios[index] <= target_ratio * (1 - off)][:1]
    chosen += over[:DOUBTFUL]
    chosen += [index for index in under if is_published(known[index].trial.origin)][:1]
    chosen += _likely_answers(known, ratios, goal, target_ratio=target_ratio, objective=objective)
    points = [Point(value, ratio) for value, ratio in zip(values, ratios, strict=True)]
    chosen += spread(points, ON_FRONT)
    return tuple(known[index] for index in dict.fromkeys(chosen))


def _likely_answers(
    known: Sequence[KnownPolicy],
    ratios: Sequence[float],
    goal: Goal,
    *,
    target_ratio: float,
    objective: Objective,
) -> list[int]:
    """Return the first few that the rule of the answer would take if forecasts were timings."""
    left = {
        index: make_figures(
            policy.policy,
            policy.finalist.select,
            policy.finalist.choice,
            objective,
            ratio=Interval(ratio, ratio, ratio),
            median_ms=Interval(nan, nan, nan),  # the target is a share here
            batch=1,
        )
        for index, (policy, ratio) in enumerate(zip(known, ratios, strict=True))
    }
    share, likely = Target(f"{target_ratio}x", target_ratio, "x"), list[int]()
    while len(likely) < UNDER and left:
        choice = choose(list(left.values()), replace(goal, target=share))
        if choice.index is None:
            break
        likely.append(list(left)[choice.index])
        del left[likely[-1]]
    return likely


def confirm_known(
    known: Sequence[KnownPolicy],
    timing: PolicyTimer,
    objective: Objective,
    listener: ProgressListener,
    *,
    seconds: float = RETARGET_SECONDS,
    same_cell: bool = False,
) -> tuple[ConfirmedPolicy, ...]:
    """Time all afresh, side by side; fastest first.

    seconds    of passes, for each
    same_cell  whether the run timed them in this cell: its timings are kept beside the fresh ones
    """
    listener.stage("timing schedules of the run side by side", unit="rounds")
    comparisons: list[Comparison] = []
    for start in range(0, len(known), MAX_TOGETHER):
        some = [policy.policy for policy in known[start : start + MAX_TOGETHER]]
        budget = make_confirm_budget(len(some), seconds)
        tell = partial(tell_rounds, listener, budget)
        comparisons += timing.time_together(some, budget, tell=tell, until_precise=True)
    confirmed = (
        policy.confirmed(comparison, objective, same_cell=same_cell)
        for policy, comparison in zip(known, comparisons, strict=True)
    )
    return tuple(sorted(confirmed, key=lambda policy: policy.comparison.ratio))


@dataclass(frozen=True)
class Retarget:
    """Another goal, in the cell of `timing`, asked of a finished run."""

    source: FinishedRun
    folder: RunFolder  # of its own
    timing: PolicyTimer
    goal: Goal
    listener: ProgressListener
    command: str
    confirm_seconds: float = RETARGET_SECONDS  # of passes, for each policy of a session of timing

    def run(self) -> RunDocument:
        """Answer, and return what run.json then holds.

        Leaves a run folder like that of a search, but for trials and profiles.

        Raises:
            RunError: `folder` is that of another run, is in use, or cannot be written.
            PolicyError: The model of `timing` has another geometry than that of the run.
        """
        began = time.monotonic()
        check_folder(self.source.folder, self.folder)
        for known in self.source.known:
            check_policy(self.timing.model, known.policy)
        document = self._document()
        self.folder.create()
        with self.folder.locked():
            self.folder.write_run(document)
            result = replace(self._answer(document), seconds=time.monotonic() - began)
            document = replace(document, result=result)
            self.folder.write_run(document)
        return document

    def _answer(self, document: RunDocument) -> RunResult:
        """Time what is worth it, and write front and answer."""
        timing, objective = self.timing, self.source.settings.objective
        self._hand_on_costs()
        reduced = [known.policy for known in self.source.known if known.policy.reduces]
        forecast = make_forecast(timing, self.folder, self.listener, pick_mild_to_deep(reduced))
        self.listener.stage("timing the baseline")
        batch, seconds = timing.cell.batch, self.confirm_seconds
        first = timing.time(self.source.baseline, make_confirm_budget(1, seconds))
        target_ratio = self.goal.target_ratio(batch=batch, baseline_ms=first.baseline.median_ms)
        doubt = self._doubt(forecast, target_ratio)
        chosen = select_to_time(
            self.source.known, forecast, self.goal, target_ratio=target_ratio, objective=objective
        )
        self._note_left(len(self.source.known) - len(chosen))
        confirmed = confirm_known(
            chosen,
            timing,
            objective,
            self.listener,
            seconds=seconds,
            same_cell=self.source.document.cell == timing.cell,
        )
        settled = settle(
            confirmed,
            self.goal,
            batch=batch,
            time=partial(timing.time_together, until_precise=True),
            seconds=seconds,
            count_rounds=lambda _: ENOUGH_PASSES,  # or few passes alone would leave a doubt
            listener=self.listener,
        )
        result = write_result(
            self.folder,
            make_selection(settled.finalists, self.goal, batch=batch),
            {known.trial.schedule_hash: known.report for known in chosen},
            cell=timing.cell,
            document=document,
        )
        return replace(
            result,
            cautions=(*result.cautions, *(() if doubt is None else (doubt,))),
            forecast=ForecastError(forecast.error, timed=0),
        )

    def _note_left(self, left: int) -> None:
        """Say of how many finalists of the run no timing is taken, and why."""
        if left:
            self.listener.note(
                f"{left} of the {len(self.source.known)} finalists of {self.source.folder.path} "
                f"are not timed again: by predicted latency they are neither the answer to "
                f"{self.goal} nor needed for the front"
            )

    def _doubt(self, forecast: Forecast, target_ratio: float) -> str | None:
        """Say so where the run did not search for what is asked now."""
        source = self.source
        reduced = [known.finalist for known in source.known if known.policy.reduces]
        same = source.document.cell == self.timing.cell
        ratios = [
            MovedCell(
                policy.comparison.ratio,
                policy.comparison.ratio if same else forecast.ratio(policy.policy),
            )
            for policy in reduced
        ]
        return read_searched_cell(ratios, source.target_ratio).doubt(
            target_ratio, off=forecast.margin, front=source.folder.front
        )

    def _document(self) -> RunDocument:
        """Return what run.json holds while there is no result."""
        cell = self.timing.cell
        settings = replace(
            self.source.settings,
            target=self.goal.target,
            max_drop=self.goal.max_drop,
            max_divergence=self.goal.max_divergence,
            device=cell.device,
            batch=cell.batch,
            resolution=cell.resolution,
            columns=cell.columns,
            backend=cell.backend,
        )
        return replace(
            self.source.document,
            settings=settings,
            budget=SearchBudget(trials=0, seconds=None),
            cell=cell,
            environment=describe_environment(torch.device(cell.device)),
            command=self.command,
            retargeted=str(self.source.folder.path),
            result=None,
            launching=warn_launch_bound(self.timing, self.listener),
        )

    def _hand_on_costs(self) -> None:
        """Take the run's own cost table if it is of this cell: a sweep is saved."""
        costs = self.source.folder.costs
        with suppress(MeasurementError):  # one that cannot be read is swept again
            if costs.is_file() and (table := load_costs(costs)).cell == self.timing.cell:
                save_costs(table, self.folder.costs)
        if self.timing.cell.backend in SPLIT and not self.folder.costs.is_file():
            self.listener.note(
                f"{self.source.folder.path} holds no costs.json of this cell: what token counts "
                f"and operators cost is swept first, for up to {SWEEP_SECONDS:.0f} s"
            )
