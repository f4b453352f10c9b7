"""The last stages of a run: confirm, select, quote, compare, profile."""

import time
from collections.abc import Sequence
from dataclasses import replace

from tokensearch.accuracy.accuracy import compare_results
from tokensearch.errors import first_line
from tokensearch.evaluation.evaluator import PolicyEvaluator, ScoredPolicy
from tokensearch.policy import Goal, Policy
from tokensearch.records.measurements import PairedAccuracy
from tokensearch.records.profile_file import profile_to_json
from tokensearch.records.run_result import (
    Alternative,
    BaselineMoved,
    ForecastError,
    RunDocument,
    RunResult,
    TrialCounts,
)
from tokensearch.search.finalists.alternatives import (
    NO_REASON_TO_FAIL,
    AlternativeModel,
    measure_alternatives,
)
from tokensearch.search.finalists.finalist import Answer, ConfirmedPolicy, confirm
from tokensearch.search.finalists.result import (
    Selection,
    baseline_drift,
    make_selection,
    result_cautions,
    write_result,
)
from tokensearch.search.finalists.selection import (
    MORE,
    find_overlooked,
    rank_trials,
    select_finalists,
)
from tokensearch.search.loop import SearchLoop


def finish_run(
    search: SearchLoop,
    evaluator: PolicyEvaluator,
    document: RunDocument,
    smaller: AlternativeModel | None = None,
) -> RunResult:
    """Turn trials into an answer, and return the result of a run; its seconds are those so far.

    smaller  a model to compare the answer with
    """
    goal, target_ratio = document.settings.goal, search.target_ratio
    finalists = _confirm_all(search, evaluator, goal)
    selection = make_selection(finalists, goal, batch=evaluator.cell.batch)
    result = write_result(
        search.folder,
        selection,
        _score_reports(search, evaluator, selection.quoted),
        cell=evaluator.cell,
        document=document,
        lead=_lead(evaluator, selection),
    )
    alternatives = _measure_alternatives(
        search, evaluator, selection, target_ratio=target_ratio, smaller=smaller
    )
    failed = _profile_or_say_why(search, evaluator, selection.answer)
    forecast = search.forecast
    return replace(
        result,
        alternatives=alternatives,
        cautions=(*result_cautions(finalists, alternatives), *failed, *_short(search)),
        search_seconds=search.searched_seconds,
        trials=_count_trials(search),
        baseline_moved=BaselineMoved(
            search=baseline_drift(search.trials),
            finalists=baseline_drift([*finalists, *alternatives]),
        ),
        forecast=ForecastError(forecast.error, len(forecast.timed)),
        seconds=search.seconds,
    )


def _confirm_all(
    search: SearchLoop, evaluator: PolicyEvaluator, goal: Goal
) -> tuple[ConfirmedPolicy, ...]:
    """Confirm what is chosen, and what their timings show to be better; fastest first."""
    off, target_ratio = search.forecast.error, search.target_ratio
    waiting = list(select_finalists(rank_trials(search), goal, target_ratio=target_ratio, off=off))
    most, finalists, began = len(waiting) + MORE, list[ConfirmedPolicy](), time.monotonic()
    search.listener.stage(
        f"confirming finalists ({len(waiting)}) on fresh images, by fresh timings"
    )
    while waiting:
        finalists.append(confirm(waiting.pop(0), evaluator, search.objective))
        search.update_forecast(finalists[-1].policy, finalists[-1].comparison)
        if not waiting and len(finalists) < most:
            more = find_overlooked(
                rank_trials(search),
                finalists,
                goal,
                batch=evaluator.cell.batch,
                target_ratio=target_ratio,
                off=search.forecast.error,
            )
            waiting += [] if more is None else [more]
        search.listener.progress(
            done=len(finalists),
            total=len(finalists) + len(waiting),
            seconds_left=(time.monotonic() - began) / len(finalists) * len(waiting),
            text=f"{finalists[-1].comparison.ratio:.2f}x ({finalists[-1].trial.origin})",
        )
    return tuple(sorted(finalists, key=lambda f: f.comparison.ratio))


def _score_reports(
    search: SearchLoop, evaluator: PolicyEvaluator, finalists: Sequence[ConfirmedPolicy]
) -> dict[str, ScoredPolicy]:
    """Score on `report` what will be quoted, by schedule; nothing is chosen any more."""
    search.listener.stage(f"measuring the accuracy of {len(finalists)} on the report split")
    reports, began = {}, time.monotonic()
    for done, finalist in enumerate(finalists, 1):
        report = evaluator.score(finalist.policy, "report")
        reports[finalist.schedule_hash] = report
        search.listener.progress(
            done=done,
            total=len(finalists),
            seconds_left=(time.monotonic() - began) / done * (len(finalists) - done),
            text=f"{100 * report.accuracy.top1:.1f} %",
        )
    return reports


def _lead(evaluator: PolicyEvaluator, selection: Selection) -> PairedAccuracy | None:
    """Compare the answer with the best published schedule on the images that are quoted."""
    answer, preset = selection.answer.policy, selection.preset
    if answer is None or preset is None:
        return None
    mine, theirs = (
        evaluator.predictions.results(confirmed.policy, "report") for confirmed in (answer, preset)
    )
    return compare_results(mine, theirs, evaluator.splits.report)


def _measure_alternatives(
    search: SearchLoop,
    evaluator: PolicyEvaluator,
    selection: Selection,
    *,
    target_ratio: float,
    smaller: AlternativeModel | None,
) -> tuple[Alternative, ...]:
    """Measure what else would be as fast; nothing where the baseline is fast enough."""
    if selection.answer.outcome == "unreduced":
        return ()
    answer = selection.answer.policy
    return measure_alternatives(
        evaluator,
        search.listener,
        target_ratio=target_ratio,
        answer=None if answer is None else answer.policy,
        smaller=smaller,
    )


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
