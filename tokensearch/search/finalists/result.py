"""The end of a run: confirm, select, profile, and write every file but run.json."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tokensearch import __version__
from tokensearch.accuracy.accuracy import compare_results
from tokensearch.errors import first_line
from tokensearch.evaluation.evaluator import PolicyEvaluator, ScoredPolicy
from tokensearch.evaluation.latency import PolicyTimer
from tokensearch.policy import ModelSpec, Policy, PolicySet, Target, parse_target, save, save_set
from tokensearch.policy.policy import Json
from tokensearch.progress import ProgressListener
from tokensearch.records.comparability import BaselineDrift
from tokensearch.records.measurements import Caution, Cell, PairedAccuracy, Trial
from tokensearch.records.profile_file import profile_to_json
from tokensearch.records.run_folder import RunFolder
from tokensearch.search.finalists.alternatives import (
    NO_REASON_TO_FAIL,
    Alternative,
    AlternativeModel,
    measure_alternatives,
)
from tokensearch.search.finalists.finalist import (
    Answer,
    Finalist,
    best_preset,
    confirm,
    finalist_to_json,
    make_evidence,
    on_front,
    select_answer,
    target_ratio,
)
from tokensearch.search.finalists.selection import (
    MORE,
    find_overlooked,
    rank_trials,
    select_finalists,
)
from tokensearch.search.loop import SearchLoop

EXIT_CODES = {"met": 0, "unreduced": 0, "missed": 3, "ambiguous": 4}


def finish_run(
    search: SearchLoop,
    evaluator: PolicyEvaluator,
    document: Json,
    smaller: AlternativeModel | None = None,
) -> dict[str, Any]:
    """Turn trials into an answer, and return the `result` of run.json, which is `document`.

    smaller  a model to compare the answer with
    """
    target, batch = parse_target(document["settings"]["target"]), evaluator.cell.batch
    first = next(trial.comparison for trial in search.trials if trial.origin == "none")
    assert first is not None  # the baseline cannot be worse than itself
    limit = target_ratio(first, target, batch=batch)
    finalists = _confirmed(search, evaluator, target, limit)
    verdict = select_finalists_for(finalists, target, batch=batch)
    reports = _reports(search, evaluator, verdict.quoted)
    result = write_result(
        search.folder,
        verdict,
        reports,
        cell=evaluator.cell,
        document=document,
        lead=_lead(evaluator, verdict),
    )
    others = _rivals(search, evaluator, verdict, limit=limit, smaller=smaller)
    unprofiled = _profiled(search, evaluator, verdict.best)
    return {
        **result,
        "rivals": [one.to_json() for one in others],
        "cautions": [*result_cautions(finalists, others), *unprofiled, *_short(search)],
        "search_seconds": search.searched_seconds,
        "trials": _counts(search),
        "baseline_moved": {
            "search": baseline_drift(search.trials),
            "finalists": baseline_drift([*finalists, *others]),
        },
        "forecast": {"error": search.forecast.error, "timed": len(search.forecast.timed)},
    }


@dataclass(frozen=True, slots=True)
class Selection:
    """Finalists, and what they are worth for a target."""

    finalists: tuple[Finalist, ...]  # fastest first
    target: Target
    batch: int
    best: Answer
    preset: Finalist | None  # the best published one that meets the target
    members: tuple[Finalist, ...]  # of the front

    @property
    def quoted(self) -> tuple[Finalist, ...]:
        """Those whose report figures are shown."""
        return tuple(f for f in self.finalists if f in self.members or f is self.preset or f.random)


def select_finalists_for(finalists: Sequence[Finalist], target: Target, *, batch: int) -> Selection:
    """Choose among finalists."""
    best = select_answer(finalists, target, batch=batch)
    return Selection(
        tuple(finalists),
        target,
        batch,
        best,
        best_preset(finalists, target, batch=batch),
        on_front(finalists, best.finalist),
    )


def write_result(
    folder: RunFolder,
    found: Selection,
    reports: Mapping[str, ScoredPolicy],
    *,
    cell: Cell,
    document: Json,
    lead: PairedAccuracy | None = None,
) -> dict[str, Any]:
    """Write front and answer, and return what run.json says of them.

    reports  what is quoted, by schedule
    lead     the answer against the best published schedule, image by image of `report`
    """
    best = found.best
    policies = {
        f.trial.schedule_hash: _stamped(f, document).with_evidence(
            make_evidence(f, reports[f.trial.schedule_hash], cell, confirmed=_sure(f, best))
        )
        for f in found.quoted
    }
    write_front(folder, [policies[f.trial.schedule_hash] for f in found.members])
    _write_answer(folder, best, policies)
    unreduced = next(f for f in found.finalists if not f.policy.reduces).comparison
    baseline_ms = unreduced.baseline.median_ms
    return {
        "outcome": best.outcome,
        "exit_code": EXIT_CODES[best.outcome],
        "limit_ms": found.target.limit_ms(batch=found.batch, baseline_ms=baseline_ms),
        "baseline_ms": baseline_ms,
        "answer": best.finalist.trial.schedule_hash if best.finalist else None,
        "best_preset": _named(found.preset, lead),
        "finalists": [
            finalist_to_json(f, reports[f.trial.schedule_hash], front_member=f in found.members)
            for f in found.quoted
        ],
        "rivals": [],
        "cautions": result_cautions(found.finalists),
    }


def _confirmed(
    search: SearchLoop, evaluator: PolicyEvaluator, target: Target, limit: float
) -> tuple[Finalist, ...]:
    """Confirm what is chosen, and what their timings show to be better; fastest first."""
    waiting = list(select_finalists(rank_trials(search), limit=limit, off=search.forecast.error))
    most, finalists, began = len(waiting) + MORE, list[Finalist](), time.monotonic()
    search.listener.stage(f"confirming {len(waiting)} finalists on fresh images, by fresh timings")
    while waiting:
        finalists.append(confirm(waiting.pop(0), evaluator, search.objective))
        search.update_forecast(finalists[-1].policy, finalists[-1].comparison)
        if not waiting and len(finalists) < most:
            more = find_overlooked(
                rank_trials(search),
                finalists,
                target,
                batch=evaluator.cell.batch,
                limit=limit,
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


def _reports(
    search: SearchLoop, evaluator: PolicyEvaluator, finalists: Sequence[Finalist]
) -> dict[str, ScoredPolicy]:
    """Score on `report` what will be quoted, by schedule; nothing is chosen any more."""
    search.listener.stage(f"quoting {len(finalists)} of them on the report split")
    reports, began = {}, time.monotonic()
    for done, finalist in enumerate(finalists, 1):
        report = evaluator.score(finalist.policy, "report")
        reports[finalist.trial.schedule_hash] = report
        search.listener.progress(
            done=done,
            total=len(finalists),
            seconds_left=(time.monotonic() - began) / done * (len(finalists) - done),
            text=f"{100 * report.accuracy.top1:.1f} %",
        )
    return reports


def _sure(finalist: Finalist, best: Answer) -> bool:
    """Whether a policy may be called confirmed: a doubtful answer may not."""
    return not (finalist is best.finalist and best.outcome == "ambiguous")


def _stamped(finalist: Finalist, document: Json) -> Policy:
    """Return the policy with the model's weights, and where it comes from."""
    trial = finalist.trial
    return replace(
        finalist.policy,
        model=ModelSpec(**document["model"]),
        provenance={
            "tokensearch": __version__,
            "command": document["command"],
            "seed": document["settings"]["seed"],
            "origin": trial.origin,
            "trial": trial.number,
        },
    )


def write_front(folder: RunFolder, members: Sequence[Policy]) -> None:
    """Write the front, as a set and one by one."""
    for place, policy in enumerate(members):
        save(policy, folder.member(place))
    for old in folder.members()[len(members) :]:
        old.unlink()
    save_set(PolicySet(tuple(members)), folder.front)


def _write_answer(folder: RunFolder, best: Answer, policies: dict[str, Policy]) -> None:
    if best.finalist is None:
        folder.policy.unlink(missing_ok=True)
        (folder.profiles / "answer.json").unlink(missing_ok=True)
    else:
        save(policies[best.finalist.trial.schedule_hash], folder.policy)


def _profiled(search: SearchLoop, evaluator: PolicyEvaluator, best: Answer) -> list[str]:
    """Profile, or go on without and say so: the result is known by then."""
    try:
        _profile(search, evaluator, best)
    except NO_REASON_TO_FAIL as error:
        for name in ("baseline", "answer"):  # those of another process, or one of two
            (search.folder.profiles / f"{name}.json").unlink(missing_ok=True)
        return [f"no profiles could be taken: {first_line(error)}"]
    return []


def _profile(search: SearchLoop, evaluator: PolicyEvaluator, best: Answer) -> None:
    """Profile the baseline and the answer."""
    search.listener.stage("profiling the baseline and the answer")
    policies = {"baseline": Policy(search.study.model)}
    if best.finalist is not None:
        policies["answer"] = best.finalist.policy
    for found in evaluator.profile(policies, search.folder):
        search.folder.write_profile(found.name, profile_to_json(found))


def _short(search: SearchLoop) -> list[str]:
    """Say so where the search had no time to propose anything of its own."""
    own = any(trial.origin in {"seed", "sampler", "fastest"} for trial in search.trials)
    if own or search.out_of_reach or search.duplicates:
        return []
    return [
        f"the search had time for {len(search.trials)} trials and proposed none of them: allow "
        f"more --minutes or --trials"
    ]


def _counts(search: SearchLoop) -> dict[str, int]:
    states = [trial.state for trial in search.trials]
    return {
        "complete": states.count("complete"),
        "raced": states.count("raced"),
        "out_of_reach": search.out_of_reach,
        "duplicate": search.duplicates,
    }


def _rivals(
    search: SearchLoop,
    evaluator: PolicyEvaluator,
    found: Selection,
    *,
    limit: float,
    smaller: AlternativeModel | None,
) -> tuple[Alternative, ...]:
    """Measure what else would be as fast; nothing where the baseline is fast enough."""
    if found.best.outcome == "unreduced":
        return ()
    best = found.best.finalist
    policy = None if best is None else best.policy
    return measure_alternatives(
        evaluator, search.listener, limit=limit, answer=policy, smaller=smaller
    )


def _lead(evaluator: PolicyEvaluator, found: Selection) -> PairedAccuracy | None:
    """Compare the answer with the best published schedule on the images that are quoted."""
    if found.best.finalist is None or found.preset is None:
        return None
    mine, theirs = (
        evaluator.predictions.results(one.policy, "report")
        for one in (found.best.finalist, found.preset)
    )
    return compare_results(mine, theirs, evaluator.splits.report)


def _named(preset: Finalist | None, lead: PairedAccuracy | None) -> dict[str, Any] | None:
    if preset is None:
        return None
    return {
        "name": preset.trial.origin,
        "schedule_hash": preset.trial.schedule_hash,
        "lead": None if lead is None else asdict(lead),
    }


def result_cautions(finalists: Sequence[Finalist], others: Sequence[Alternative] = ()) -> list[str]:
    """Every doubt about a confirmed timing, once; and one about comparing them in milliseconds."""
    timed = [one.comparison for one in finalists] + [one.comparison for one in others]
    found = {caution for one in timed for caution in one.cautions}
    if _sentinel([*finalists, *others]).drifted:
        found.add(Caution.MOVED_BASELINE)
    return sorted(caution.value for caution in found)


def warn_launch_bound(timing: PolicyTimer, listener: ProgressListener) -> dict[str, float] | None:
    """Say so if the baseline is launch-bound; return what run.json holds of it."""
    found = timing.launching
    if found is not None and found.bound:
        listener.caution(found.sentence)
    return None if found is None else asdict(found)


def baseline_drift(timed: Iterable[Finalist | Alternative | Trial]) -> float:
    """Share by which the baseline's speed changed between them."""
    return _sentinel(timed).moved


def _sentinel(timed: Iterable[Finalist | Alternative | Trial]) -> BaselineDrift:
    """Return how the baseline fared beside each of them; some trials were not timed."""
    comparisons = [one.comparison for one in timed]
    return BaselineDrift([one.baseline for one in comparisons if one is not None])
