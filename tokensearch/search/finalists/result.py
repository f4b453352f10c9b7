"""What came of a run: the selection among finalists, and every file of it but run.json."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tokensearch import __version__
from tokensearch.evaluation.evaluator import ScoredPolicy
from tokensearch.evaluation.latency import PolicyTimer
from tokensearch.policy import Goal, Policy, PolicySet, save, save_set
from tokensearch.progress import ProgressListener
from tokensearch.records.comparability import BaselineDrift
from tokensearch.records.launch_bound import LaunchCost
from tokensearch.records.measurements import Caution, Cell, PairedAccuracy, Trial
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
from tokensearch.search.finalists.finalist import (
    Answer,
    ConfirmedPolicy,
    best_preset,
    make_evidence,
    on_front,
    select_answer,
)


@dataclass(frozen=True, slots=True)
class Selection:
    """Finalists, and what they are worth for a target."""

    finalists: tuple[ConfirmedPolicy, ...]  # fastest first
    goal: Goal
    batch: int
    answer: Answer
    preset: ConfirmedPolicy | None  # the best published one that meets the target
    members: tuple[ConfirmedPolicy, ...]  # of the front

    @property
    def quoted(self) -> tuple[ConfirmedPolicy, ...]:
        """Those whose report figures are shown."""
        return tuple(f for f in self.finalists if f in self.members or f is self.preset or f.random)


def make_selection(finalists: Sequence[ConfirmedPolicy], goal: Goal, *, batch: int) -> Selection:
    """Choose among finalists."""
    return Selection(
        tuple(finalists),
        goal,
        batch,
        select_answer(finalists, goal, batch=batch),
        best_preset(finalists, goal, batch=batch),
        on_front(finalists),
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
            make_evidence(f, reports[f.schedule_hash], cell, confirmed=True)
        )
        for f in selection.quoted
    }
    write_front(folder, [policies[f.schedule_hash] for f in selection.members])
    _write_answer(folder, answer, policies)
    baseline = next(f for f in selection.finalists if not f.policy.reduces).comparison
    baseline_ms, target = baseline.baseline.median_ms, selection.goal.target
    return RunResult(
        outcome=answer.outcome,
        limit_ms=None
        if target is None
        else target.limit_ms(batch=selection.batch, baseline_ms=baseline_ms),
        baseline_ms=baseline_ms,
        answer_hash=None if answer.policy is None else answer.policy.schedule_hash,
        as_good=tuple(policy.schedule_hash for policy in answer.as_good),
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
        choice=confirmed.choice,
    )


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
        return
    policy = policies[answer.policy.schedule_hash]
    if answer.outcome == "ambiguous":  # a doubtful answer may not be called confirmed
        policy = policy.with_evidence(replace(policy.evidence[0], confirmed=False))
    save(policy, folder.policy)


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
