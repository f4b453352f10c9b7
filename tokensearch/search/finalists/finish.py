"""The last stages of a run: confirm, select, quote, compare, profile."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from tokensearch.accuracy.accuracy import choice_figures, compare_results
from tokensearch.accuracy.results import ImageResults
from tokensearch.data.splits import Purpose
from tokensearch.errors import first_line
from tokensearch.evaluation.evaluator import PolicyEvaluator, ScoredPolicy
from tokensearch.evaluation.latency import MAX_TOGETHER
from tokensearch.policy import Goal, Policy
from tokensearch.policy.file import policy_from_json
from tokensearch.progress import ProgressListener
from tokensearch.records.measurements import Comparison, PairedAccuracy, Trial
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
from tokensearch.search.finalists.side_by_side import make_confirm_budget, settle, tell_rounds
from tokensearch.search.loop import SearchLoop

CONFIRM_SECONDS = 3.0  # of passes, for each policy of a session of timing


def finish_run(
    search: SearchLoop,
    evaluator: PolicyEvaluator,
    document: RunDocument,
    *,
    smaller: AlternativeModel | None = None,
    confirm_seconds: float = CONFIRM_SECONDS,
) -> RunResult:
    """Turn trials into an answer, and return the result of a run; its seconds are those so far.

    smaller          a model to compare the answer with
    confirm_seconds  of passes, for each policy of a session of timing
    """
    goal, batch = document.settings.goal, evaluator.cell.batch
    finalists = _confirm_all(search, evaluator, goal, confirm_seconds)
    answer = select_answer(finalists, goal, batch=batch)
    models = _find_alternatives(search, evaluator, answer, goal, smaller=smaller)
    settled = settle(
        finalists,
        goal,
        batch=batch,
        time=evaluator.time_together,
        seconds=confirm_seconds,
        listener=search.listener,
        others=[model.on(evaluator.images) for model in models],
    )
    selection = make_selection(settled.finalists, goal, batch=batch)
    result = write_result(
        search.folder,
        selection,
        _score_reports(search, evaluator, selection.quoted),
        cell=evaluator.cell,
        document=document,
        leads=_leads(evaluator, selection),
    )
    best = selection.answer.policy
    alternatives = score_alternatives(
        models,
        settled.others,
        evaluator,
        search.listener,
        answer=None if best is None else best.policy,
    )
    failed = _profile_or_say_why(search, evaluator, selection.answer)
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


def _confirm_all(
    search: SearchLoop, evaluator: PolicyEvaluator, goal: Goal, seconds: float
) -> tuple[ConfirmedPolicy, ...]:
    """Confirm what is chosen, and what their timings show to be better; fastest first."""
    best, target_ratio = rank_trials(search), search.target_ratio
    chosen = select_finalists(best, goal, target_ratio=target_ratio, off=search.forecast.error)
    finalists = _confirm(chosen, search, evaluator, seconds)
    for _ in range(MORE):
        more = find_overlooked(
            rank_trials(search),
            finalists,
            goal,
            batch=evaluator.cell.batch,
            target_ratio=target_ratio,
            off=search.forecast.error,
        )
        if more is None:
            break
        finalists += _confirm([more], search, evaluator, seconds)
    return tuple(sorted(finalists, key=lambda f: f.comparison.ratio))


def _confirm(
    trials: Sequence[Trial], search: SearchLoop, evaluator: PolicyEvaluator, seconds: float
) -> list[ConfirmedPolicy]:
    """Score trials on `select`, and time them afresh, side by side."""
    policies = [policy_from_json(trial.policy) for trial in trials]
    count = f"{len(trials)} of the trials"
    search.listener.stage(f"scoring {count} on fresh images")
    scored = score_together(evaluator, policies, "select", search.listener)
    search.listener.stage(f"timing {count} side by side", unit="rounds")
    comparisons: list[Comparison] = []
    for start in range(0, len(policies), MAX_TOGETHER):
        some = policies[start : start + MAX_TOGETHER]
        budget = make_confirm_budget(len(some), seconds)
        tell = partial(tell_rounds, search.listener, budget)
        comparisons += evaluator.time_together(some, budget, tell=tell)
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
    evaluator: PolicyEvaluator,
    answer: Answer,
    goal: Goal,
    *,
    smaller: AlternativeModel | None,
) -> tuple[AlternativeModel, ...]:
    """Return what else may be as fast; nothing where the baseline is fast enough."""
    if answer.outcome == "unreduced":
        return ()
    target_ratio = search.target_ratio
    if goal.target is None and answer.policy is not None:  # as fast as the answer is
        target_ratio = answer.policy.comparison.ratio
    return find_alternatives(evaluator, search.listener, target_ratio=target_ratio, smaller=smaller)


def _score_reports(
    search: SearchLoop, evaluator: PolicyEvaluator, finalists: Sequence[ConfirmedPolicy]
) -> dict[str, ScoredPolicy]:
    """Score on `report` what will be quoted, by schedule; nothing is chosen any more."""
    search.listener.stage(f"measuring the accuracy of {len(finalists)} on the report split")
    policies = [finalist.policy for finalist in finalists]
    results = score_together(evaluator, policies, "report", search.listener)
    return {
        finalist.schedule_hash: evaluator.score_results(own, "report")
        for finalist, own in zip(finalists, results, strict=True)
    }


def score_together(
    evaluator: PolicyEvaluator,
    policies: Sequence[Policy],
    purpose: Purpose,
    listener: ProgressListener,
) -> list[ImageResults]:
    """Return the results of policies on a split, of which each image is read once for all."""
    chunks, began = evaluator.predictions.count_chunks(purpose), time.monotonic()
    for number in range(chunks):
        for policy in policies:
            evaluator.predictions.chunk(policy, purpose, number)
        done = number + 1
        listener.progress(
            done=done,
            total=chunks,
            seconds_left=(time.monotonic() - began) / done * (chunks - done),
            text="",
        )
    return [evaluator.predictions.results(policy, purpose) for policy in policies]


def _profile_or_say_why(
    search: SearchLoop, evaluator: PolicyEvaluator, answer: Answer
) -> tuple[str, ...]:
    """Profile, or go on without and say so: the result is known by then."""
    try:
        _profile(search, evaluator, answer)
    except NO_REASON_TO_FAIL as error:
        for name in ("baseline", "answer"):  # those of another process, or one of two
            (search.folder.profiles / f"{name}.json").unlink(missing_ok=True)
        return (f"no profiles could be taken: {first_line(error)}",)
    return ()


def _profile(search: SearchLoop, evaluator: PolicyEvaluator, answer: Answer) -> None:
    """Profile the baseline and the answer."""
    search.listener.stage("profiling the baseline and the answer")
    policies = {"baseline": Policy(search.study.model)}
    if answer.policy is not None:
        policies["answer"] = answer.policy.policy
    for profile in evaluator.profile(policies, search.folder):
        search.folder.write_profile(profile.name, profile_to_json(profile))


def _leads(evaluator: PolicyEvaluator, selection: Selection) -> dict[str, PairedAccuracy]:
    """Compare the answer with each of its rivals on the images that are quoted, by schedule."""
    answer = selection.answer.policy
    if answer is None:
        return {}
    mine = evaluator.predictions.results(answer.policy, "report")
    return {
        rival.schedule_hash: compare_results(
            mine, evaluator.predictions.results(rival.policy, "report"), evaluator.splits.report
        )
        for rival in selection.rivals
    }


def _short(search: SearchLoop) -> tuple[str, ...]:
    """Say so where the search had no time to propose anything of its own."""
    own = any(trial.origin in {"seed", "sampler", "fastest"} for trial in search.trials)
    if own or search.out_of_reach or search.duplicates:
        return ()
    return (
        f"the search had time for its controls alone ({len(search.trials)}) and proposed nothing: "
        f"allow more --minutes or --trials",
    )


def _count_trials(search: SearchLoop) -> TrialCounts:
    states = [trial.state for trial in search.trials]
    return TrialCounts(
        complete=states.count("complete"),
        raced=states.count("raced"),
        out_of_reach=search.out_of_reach,
        duplicate=search.duplicates,
    )
