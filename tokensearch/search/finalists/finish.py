"""The last stages of a run: confirm, select, quote, compare, profile."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from tokensearch.accuracy.accuracy import Results, choice_figures, compare_results
from tokensearch.data.splits import Purpose
from tokensearch.errors import first_line
from tokensearch.evaluation.evaluator import PolicyEvaluator, ScoredPolicy
from tokensearch.evaluation.predictions import CHUNK
from tokensearch.policy import Goal, Policy
from tokensearch.policy.file import policy_from_json
from tokensearch.progress import ProgressListener
from tokensearch.records.measurements import PairedAccuracy, Trial
from tokensearch.records.profile_file import profile_to_json
from tokensearch.records.run_result import (
    BaselineMoved,
    ForecastError,
    RunDocument,
    RunResult,
    TrialCounts,
)
from tokensearch.search.finalists.alternatives import (
    NO_REASON_TO_FAIL,
    AlternativeModel,
    find_alternatives,
    score_alternatives,
)
from tokensearch.search.finalists.finalist import Answer, ConfirmedPolicy, select_answer
from tokensearch.search.finalists.other_settings import OtherSettings, time_variants
from tokensearch.search.finalists.result import (
    Selection,
    baseline_drift,
    make_selection,
    write_result,
)
from tokensearch.search.finalists.selection import (
    MORE,
    find_overlooked,
    rank_trials,
    select_finalists,
)
from tokensearch.search.finalists.side_by_side import (
    Settled,
    make_confirm_budget,
    settle,
    tell_rounds,
)
from tokensearch.search.loop import SearchLoop
from tokensearch.search.time_plan import TimePlan


def finish_run(
    search: SearchLoop,
    evaluator: PolicyEvaluator,
    document: RunDocument,
    plan: TimePlan,
    *,
    smaller: AlternativeModel | None = None,
    other_settings: Sequence[OtherSettings] = (),
) -> RunResult:
    """Turn trials into an answer, and return the result of a run; its seconds are those so far.

    smaller         a model to compare the answer with
    other_settings  in which the answer and the baseline are tried too
    """
    goal, batch = document.settings.goal, evaluator.cell.batch
    evaluator.forget_activations()  # timings and profiles have use for the memory
    scorer = FinalScorer(evaluator, search.listener, plan)
    finalists = _confirm_all(search, scorer, goal)
    answer = select_answer(finalists, goal, batch=batch)
    models = _find_alternatives(search, scorer, answer, goal, smaller=smaller)
    settled = _settle(scorer, finalists, models, goal)
    selection = make_selection(settled.finalists, goal, batch=batch)
    result = write_result(
        search.folder,
        selection,
        _score_reports(scorer, selection.quoted),
        cell=evaluator.cell,
        document=document,
        leads=_leads(scorer, selection),
    )
    best = None if selection.answer.policy is None else selection.answer.policy.policy
    variants, timed = time_variants(
        evaluator, other_settings, best, search.listener, seconds=plan.confirm_seconds
    )
    alternatives = score_alternatives(
        [*models, *variants],
        [*settled.others, *timed],
        evaluator,
        search.listener,
        images=scorer.images["report"],
        answer=best,
    )
    failed = _profile_or_say_why(search, evaluator, selection.answer, plan)
    forecast = search.forecast
    return replace(
        result,
        alternatives=alternatives,
        cautions=(*result.cautions, *failed, *_short(search)),
        search_seconds=search.searched_seconds,
        trials=_count_trials(search),
        baseline_moved=BaselineMoved(
            search=baseline_drift(search.trials),
            finalists=baseline_drift([*settled.finalists, *alternatives]),
        ),
        forecast=ForecastError(forecast.error, len(forecast.timed)),
        seconds=search.seconds,
    )


@dataclass
class FinalScorer:
    """Scores policies on fresh images, in step: all on as many as the time of a stage allows."""

    evaluator: PolicyEvaluator
    listener: ProgressListener
    plan: TimePlan
    images: dict[Purpose, int] = field(default_factory=dict)  # of each split that were used

    def score(self, policies: Sequence[Policy], purpose: Purpose, stage: str) -> list[Results]:
        """Return the results of policies; each image is read once for all of them."""
        predictions, began = self.evaluator.predictions, time.monotonic()
        chunks = predictions.count_chunks(purpose)
        chunks = min(chunks, -(-self.images.get(purpose, chunks * CHUNK) // CHUNK))
        for done in range(1, chunks + 1):
            for policy in policies:
                predictions.chunk(policy, purpose, done - 1)
            left = (time.monotonic() - began) / done * (chunks - done)
            self.listener.progress(done=done, total=chunks, seconds_left=left, text="")
            if purpose not in self.images and self.plan.is_over(stage):
                self.images[purpose] = done * CHUNK
                break
        first = self.images.setdefault(purpose, chunks * CHUNK)
        return [predictions.results(policy, purpose, first=first) for policy in policies]


def _confirm_all(
    search: SearchLoop, scorer: FinalScorer, goal: Goal
) -> tuple[ConfirmedPolicy, ...]:
    """Confirm what is chosen, and what their timings show to be better; fastest first."""
    best, plan = rank_trials(search), scorer.plan
    chosen = select_finalists(
        best, goal, target_ratio=search.target_ratio, off=search.forecast.error
    )
    finalists = _confirm(chosen[: plan.finalists], search, scorer)
    for _ in range(MORE):
        more = find_overlooked(
            rank_trials(search),
            finalists,
            goal,
            batch=scorer.evaluator.cell.batch,
            target_ratio=search.target_ratio,
            off=search.forecast.error,
        )
        if more is None or plan.is_over("confirming"):
            break
        finalists += _confirm([more], search, scorer)
    return tuple(sorted(finalists, key=lambda f: f.comparison.ratio))


def _confirm(
    trials: Sequence[Trial], search: SearchLoop, scorer: FinalScorer
) -> list[ConfirmedPolicy]:
    """Score trials on `select`, and time them afresh, side by side."""
    evaluator, listener = scorer.evaluator, search.listener
    policies = [policy_from_json(trial.policy) for trial in trials]
    listener.stage(f"confirming finalists ({len(trials)}) on fresh images")
    scored = scorer.score(policies, "select", "confirming")
    listener.stage(f"confirming finalists ({len(trials)}) by timing side by side", unit="rounds")
    rounds = scorer.plan.count_rounds(len(policies))
    budget = make_confirm_budget(len(policies), scorer.plan.confirm_seconds, rounds)
    tell = partial(tell_rounds, listener, budget)
    comparisons = evaluator.time_together(policies, budget, tell=tell)
    confirmed = []
    for trial, policy, results, comparison in zip(
        trials, policies, scored, comparisons, strict=True
    ):
        search.update_forecast(policy, comparison)
        select = evaluator.score_results(results, "select").accuracy
        figures = choice_figures(results, evaluator.splits.select)
        confirmed.append(
            ConfirmedPolicy(trial, policy, comparison, select, figures, search.objective)
        )
    return confirmed


def _find_alternatives(
    search: SearchLoop,
    scorer: FinalScorer,
    answer: Answer,
    goal: Goal,
    *,
    smaller: AlternativeModel | None,
) -> tuple[AlternativeModel, ...]:
    """Return what else may be as fast; nothing where the baseline is fast enough."""
    if answer.outcome == "unreduced":
        return ()
    if scorer.plan.is_over("confirming"):
        search.listener.note("no time is left to look for other ways to be as fast")
        return ()
    target_ratio = search.target_ratio
    if goal.target is None and answer.policy is not None:  # as fast as the answer is
        target_ratio = answer.policy.comparison.ratio
    return find_alternatives(
        scorer.evaluator,
        search.listener,
        target_ratio=target_ratio,
        smaller=smaller,
        may_go_on=lambda: not scorer.plan.is_over("confirming"),
    )


def _settle(
    scorer: FinalScorer,
    finalists: tuple[ConfirmedPolicy, ...],
    models: Sequence[AlternativeModel],
    goal: Goal,
) -> Settled:
    """Time the answer, what it is compared with, and `models` side by side."""
    evaluator, plan = scorer.evaluator, scorer.plan
    return settle(
        finalists,
        goal,
        batch=evaluator.cell.batch,
        time=evaluator.time_together,
        seconds=plan.confirm_seconds,
        # What it decides is quoted, so it may take from the time for quoting.
        count_rounds=partial(plan.count_rounds, until="quoting"),
        may_repeat=lambda: not plan.is_over("confirming"),
        listener=scorer.listener,
        others=[model.on(evaluator.images) for model in models],
    )


def _score_reports(
    scorer: FinalScorer, finalists: Sequence[ConfirmedPolicy]
) -> dict[str, ScoredPolicy]:
    """Score on `report` what will be quoted, by schedule; nothing is chosen any more."""
    scorer.listener.stage(f"measuring the accuracy of {len(finalists)} on the report split")
    results = scorer.score([finalist.policy for finalist in finalists], "report", "quoting")
    return {
        finalist.schedule_hash: scorer.evaluator.score_results(own, "report")
        for finalist, own in zip(finalists, results, strict=True)
    }


def _profile_or_say_why(
    search: SearchLoop, evaluator: PolicyEvaluator, answer: Answer, plan: TimePlan
) -> tuple[str, ...]:
    """Profile, or go on without and say so: the result is known by then."""
    if not plan.allows_profiles:
        return ("the time was up before profiles were taken: allow more --minutes",)
    try:
        _profile(search, evaluator, answer, plan.share("profiling"))
    except NO_REASON_TO_FAIL as error:
        for name in ("baseline", "answer"):  # those of another process, or one of two
            (search.folder.profiles / f"{name}.json").unlink(missing_ok=True)
        return (f"no profiles could be taken: {first_line(error)}",)
    return ()


def _profile(
    search: SearchLoop, evaluator: PolicyEvaluator, answer: Answer, seconds: float
) -> None:
    """Profile the baseline and the answer."""
    search.listener.stage("profiling the baseline and the answer")
    policies = {"baseline": Policy(search.study.model)}
    if answer.policy is not None:
        policies["answer"] = answer.policy.policy
    for profile in evaluator.profile(policies, search.folder, seconds=seconds):
        search.folder.write_profile(profile.name, profile_to_json(profile))


def _leads(scorer: FinalScorer, selection: Selection) -> dict[str, PairedAccuracy]:
    """Compare the answer with each of its rivals on the images that are quoted, by schedule."""
    answer, evaluator = selection.answer.policy, scorer.evaluator
    if answer is None:
        return {}
    policies = [rival.policy for rival in selection.rivals]
    mine, *theirs = scorer.score([answer.policy, *policies], "report", "quoting")
    return {
        rival.schedule_hash: compare_results(mine, other, evaluator.splits.report)
        for rival, other in zip(selection.rivals, theirs, strict=True)
    }


def _short(search: SearchLoop) -> tuple[str, ...]:
    """Say so where the search had no time to propose anything of its own."""
    own = any(trial.origin in {"seed", "sampler", "fastest"} for trial in search.trials)
    if own or search.out_of_reach or search.duplicates:
        return ()
    return (
        f"the search had time for presets and controls alone ({len(search.trials)}) and proposed "
        f"nothing: allow more --minutes or --trials",
    )


def _count_trials(search: SearchLoop) -> TrialCounts:
    states = list({trial.schedule_hash: trial.state for trial in search.trials}.values())
    return TrialCounts(
        complete=states.count("complete"),
        raced=states.count("raced"),
        out_of_reach=search.out_of_reach,
        duplicate=search.duplicates,
    )
