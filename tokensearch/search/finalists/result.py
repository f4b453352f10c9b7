"""The end of a run: confirm, select, profile, and write every file but run.json."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tokensearch import __version__
from tokensearch.accuracy.accuracy import compare_results
from tokensearch.errors import first_line
from tokensearch.evaluation.evaluator import PolicyEvaluator, ScoredPolicy
from tokensearch.evaluation.latency import PolicyTimer
from tokensearch.policy import Policy, PolicySet, Target, save, save_set
from tokensearch.progress import ProgressListener
from tokensearch.records.comparability import BaselineDrift
from tokensearch.records.launch_bound import LaunchCost
from tokensearch.records.measurements import Caution, Cell, PairedAccuracy, Trial
from tokensearch.records.profile_file import profile_to_json
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import (
    Alternative,
    BaselineMoved,
    BestPreset,
    Finalist,
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
from tokensearch.search.finalists.finalist import (
    Answer,
    ConfirmedPolicy,
    best_preset,
    confirm,
    make_evidence,
    on_front,
    select_answer,
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
    target, batch = document.settings.target, evaluator.cell.batch
    first = next(trial.comparison for trial in search.trials if trial.origin == "none")
    assert first is not None  # the baseline cannot be worse than itself
    target_ratio = target.ratio(batch=batch, baseline_ms=first.baseline.median_ms)
    finalists = _confirm_all(search, evaluator, target, target_ratio)
    selection = make_selection(finalists, target, batch=batch)
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


@dataclass(frozen=True, slots=True)
class Selection:
    """Finalists, and what they are worth for a target."""

    finalists: tuple[ConfirmedPolicy, ...]  # fastest first
    target: Target
    batch: int
    answer: Answer
    preset: ConfirmedPolicy | None  # the best published one that meets the target
    members: tuple[ConfirmedPolicy, ...]  # of the front

    @property
    def quoted(self) -> tuple[ConfirmedPolicy, ...]:
        """Those whose report figures are shown."""
        return tuple(f for f in self.finalists if f in self.members or f is self.preset or f.random)


def make_selection(
    finalists: Sequence[ConfirmedPolicy], target: Target, *, batch: int
) -> Selection:
    """Choose among finalists."""
    answer = select_answer(finalists, target, batch=batch)
    return Selection(
        tuple(finalists),
        target,
        batch,
        answer,
        best_preset(finalists, target, batch=batch),
        on_front(finalists, answer.policy),
    )


def write_result(
    folder: RunFolder,
    selection: Selection,
    reports: Mapping[str, ScoredPolicy],
    *,
    cell: Cell,
    document: RunDocument,
    lead: PairedAccuracy | None = None,
) -> RunResult:
    """Write front and answer, and return the result of a run that searched nothing.

    reports  what is quoted, by schedule
    lead     the answer against the best published schedule, image by image of `report`
    """
    answer = selection.answer
    policies = {
        f.schedule_hash: _stamp(f, document).with_evidence(
            make_evidence(f, reports[f.schedule_hash], cell, confirmed=_is_sure(f, answer))
        )
        for f in selection.quoted
    }
    write_front(folder, [policies[f.schedule_hash] for f in selection.members])
    _write_answer(folder, answer, policies)
    baseline = next(f for f in selection.finalists if not f.policy.reduces).comparison
    baseline_ms = baseline.baseline.median_ms
    return RunResult(
        outcome=answer.outcome,
        limit_ms=selection.target.limit_ms(batch=selection.batch, baseline_ms=baseline_ms),
        baseline_ms=baseline_ms,
        answer_hash=None if answer.policy is None else answer.policy.schedule_hash,
        best_preset=_describe_preset(selection.preset, lead),
        finalists=tuple(
            _make_finalist(f, reports[f.schedule_hash], on_front=f in selection.members)
            for f in selection.quoted
        ),
        cautions=result_cautions(selection.finalists),
        search_seconds=0.0,
        trials=TrialCounts(),
        baseline_moved=BaselineMoved(search=0.0, finalists=baseline_drift(selection.finalists)),
        forecast=ForecastError(error=0.0, timed=0),
        seconds=0.0,
    )


def _make_finalist(confirmed: ConfirmedPolicy, report: ScoredPolicy, *, on_front: bool) -> Finalist:
    return Finalist(
        origin=confirmed.trial.origin,
        policy=confirmed.policy,
        search=confirmed.trial.accuracy,
        select=confirmed.select,
        report=report.accuracy,
        paired=report.paired,
        comparison=confirmed.comparison,
        on_front=on_front,
    )


def _confirm_all(
    search: SearchLoop, evaluator: PolicyEvaluator, target: Target, target_ratio: float
) -> tuple[ConfirmedPolicy, ...]:
    """Confirm what is chosen, and what their timings show to be better; fastest first."""
    off = search.forecast.error
    waiting = list(select_finalists(rank_trials(search), target_ratio=target_ratio, off=off))
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
                target,
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


def _is_sure(finalist: ConfirmedPolicy, answer: Answer) -> bool:
    """Whether a policy may be called confirmed: a doubtful answer may not."""
    return not (finalist is answer.policy and answer.outcome == "ambiguous")


def _stamp(finalist: ConfirmedPolicy, document: RunDocument) -> Policy:
    """Return the policy with the model's weights, and where it comes from."""
    trial = finalist.trial
    return replace(
        finalist.policy,
        model=document.model,
        provenance={
            "tokensearch": __version__,
            "command": document.command,
            "seed": document.settings.seed,
            "origin": trial.origin,
            "trial": trial.number,
        },
    )


def write_front(folder: RunFolder, members: Sequence[Policy]) -> None:
    """Write the front, as a set and one by one."""
    for number, policy in enumerate(members):
        save(policy, folder.member(number))
    for old in folder.members()[len(members) :]:
        old.unlink()
    save_set(PolicySet(tuple(members)), folder.front)


def _write_answer(folder: RunFolder, answer: Answer, policies: Mapping[str, Policy]) -> None:
    if answer.policy is None:
        folder.policy.unlink(missing_ok=True)
        (folder.profiles / "answer.json").unlink(missing_ok=True)
    else:
        save(policies[answer.policy.schedule_hash], folder.policy)


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


def _lead(evaluator: PolicyEvaluator, selection: Selection) -> PairedAccuracy | None:
    """Compare the answer with the best published schedule on the images that are quoted."""
    answer, preset = selection.answer.policy, selection.preset
    if answer is None or preset is None:
        return None
    mine, theirs = (
        evaluator.predictions.results(confirmed.policy, "report") for confirmed in (answer, preset)
    )
    return compare_results(mine, theirs, evaluator.splits.report)


def _describe_preset(
    preset: ConfirmedPolicy | None, lead: PairedAccuracy | None
) -> BestPreset | None:
    if preset is None:
        return None
    return BestPreset(preset.trial.origin, preset.schedule_hash, lead)


def result_cautions(
    finalists: Sequence[ConfirmedPolicy], alternatives: Sequence[Alternative] = ()
) -> tuple[str, ...]:
    """Every doubt about a confirmed timing, once; and one about comparing them in milliseconds."""
    timed: list[ConfirmedPolicy | Alternative] = [*finalists, *alternatives]
    cautions = {caution for item in timed for caution in item.comparison.cautions}
    if _watch_baseline(timed).drifted:
        cautions.add(Caution.MOVED_BASELINE)
    return tuple(sorted(caution.value for caution in cautions))


def warn_launch_bound(timing: PolicyTimer, listener: ProgressListener) -> LaunchCost | None:
    """Say so if the baseline is launch-bound; return what launching costs it."""
    launching = timing.launching
    if launching is not None and launching.bound:
        listener.caution(launching.sentence)
    return launching


def baseline_drift(timed: Iterable[ConfirmedPolicy | Alternative | Trial]) -> float:
    """Share by which the baseline's speed changed between them."""
    return _watch_baseline(timed).moved


def _watch_baseline(timed: Iterable[ConfirmedPolicy | Alternative | Trial]) -> BaselineDrift:
    """Return how the baseline fared beside each of them; some trials were not timed."""
    comparisons = [item.comparison for item in timed]
    return BaselineDrift([timing.baseline for timing in comparisons if timing is not None])
