"""What came of a run: the selection among finalists, and every file of it but run.json."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

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
    Finalist,
    ForecastError,
    Rival,
    RunDocument,
    RunResult,
    TrialCounts,
)
from tokensearch.search.finalists.finalist import (
    Answer,
    ConfirmedPolicy,
    best_preset,
    best_random,
    equal_preset,
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
    equal: ConfirmedPolicy | None  # the fastest published one that is as good as the answer
    random: ConfirmedPolicy | None  # the best random one that meets the target
    members: tuple[ConfirmedPolicy, ...]  # of the front

    @property
    def rivals(self) -> tuple[ConfirmedPolicy, ...]:
        """What the answer is compared with."""
        return tuple(f for f in (self.preset, self.equal, self.random) if f is not None)

    @property
    def quoted(self) -> tuple[ConfirmedPolicy, ...]:
        """Those whose report figures are shown."""
        shown = {f.schedule_hash for f in (*self.members, *self.rivals)}
        return tuple(f for f in self.finalists if f.schedule_hash in shown)


def make_selection(finalists: Sequence[ConfirmedPolicy], goal: Goal, *, batch: int) -> Selection:
    """Choose among finalists."""
    answer = select_answer(finalists, goal, batch=batch)
    return Selection(
        tuple(finalists),
        goal,
        batch,
        answer,
        best_preset(finalists, goal, batch=batch),
        equal_preset(finalists, answer.policy, batch=batch),
        best_random(finalists, goal, batch=batch),
        on_front(finalists),
    )


def write_result(
    folder: RunFolder,
    selection: Selection,
    reports: Mapping[str, ScoredPolicy],
    *,
    cell: Cell,
    document: RunDocument,
    leads: Mapping[str, PairedAccuracy] = MappingProxyType({}),
) -> RunResult:
    """Write front and answer, and return the result of a run that searched nothing.

    reports  what is quoted, by schedule
    leads    the answer against its rivals, image by image of `report`, by schedule
    """
    answer = selection.answer
    policies = {
        f.schedule_hash: _stamp(f, document).with_evidence(
            make_evidence(f, reports[f.schedule_hash], cell, confirmed=f.sure)
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
        promising=name_promising(answer),
        best_preset=_describe_rival(selection.preset, leads),
        equal_preset=_describe_rival(selection.equal, leads),
        best_random=_describe_rival(selection.random, leads),
        finalists=tuple(
            _make_finalist(f, reports[f.schedule_hash], on_front=f in selection.members)
            for f in selection.quoted
        ),
        cautions=_run_cautions(selection.finalists),
        search_seconds=0.0,
        trials=TrialCounts(),
        baseline_moved=BaselineMoved(search=0.0, finalists=baseline_drift(selection.finalists)),
        forecast=ForecastError(error=0.0, timed=0),
        seconds=0.0,
    )


def name_promising(answer: Answer) -> str | None:
    """Return the schedule that is likely better, by a timing of the answer's own session."""
    if answer.policy is None:
        return None
    session = answer.policy.comparison.baseline
    beside = (f for f in answer.promising if f.comparison.baseline == session)
    return next((policy.schedule_hash for policy in beside), None)


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
        earlier=confirmed.earlier,
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


def _describe_rival(
    rival: ConfirmedPolicy | None, leads: Mapping[str, PairedAccuracy]
) -> Rival | None:
    if rival is None:
        return None
    return Rival(rival.trial.origin, rival.schedule_hash, leads.get(rival.schedule_hash))


def _run_cautions(finalists: Sequence[ConfirmedPolicy]) -> tuple[str, ...]:
    """Return the doubts about comparing rows with each other; those about a row are its own."""
    moved = _watch_baseline(finalists).drifted
    return (Caution.MOVED_BASELINE.value,) if moved else ()


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
