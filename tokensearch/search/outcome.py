"""The end of a run: confirm, choose, profile, and write every file but run.json."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tokensearch import __version__
from tokensearch.evaluate import against
from tokensearch.policy import ModelSpec, Policy, PolicySet, Target, parse_target, save, save_set
from tokensearch.policy.policy import Json
from tokensearch.profiles import profile_to_json
from tokensearch.records import Cell, Paired
from tokensearch.run_folder import RunFolder
from tokensearch.search.cautions import cautions, moved
from tokensearch.search.choosing import MORE, choose, overlooked, placed
from tokensearch.search.evaluator import Evaluator, Scored
from tokensearch.search.finalists import (
    Answer,
    Finalist,
    answer,
    best_preset,
    confirm,
    evidence,
    limit_of,
    on_front,
    summary,
)
from tokensearch.search.rivals import NO_REASON_TO_FAIL, Contender, Rival, reason, rivals
from tokensearch.search.trials import Search

EXIT_CODES = {"met": 0, "unreduced": 0, "missed": 3, "ambiguous": 4}


def finish(
    search: Search, evaluator: Evaluator, document: Json, smaller: Contender | None = None
) -> dict[str, Any]:
    """Turn trials into an answer, and return the `result` of run.json, which is `document`.

    smaller  a model to compare the answer with
    """
    target, batch = parse_target(document["settings"]["target"]), evaluator.cell.batch
    first = next(trial.comparison for trial in search.trials if trial.origin == "none")
    assert first is not None  # the un-reduced model cannot be worse than itself
    limit = limit_of(first, target, batch=batch)
    finalists = _confirmed(search, evaluator, target, limit)
    verdict = judged(finalists, target, batch=batch)
    reports = _reports(search, evaluator, verdict.quoted)
    result = concluded(
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
        "cautions": [*cautions(finalists, others), *unprofiled, *_short(search)],
        "search_seconds": search.searched_seconds,
        "trials": _counts(search),
        "baseline_moved": {
            "search": moved(search.trials),
            "finalists": moved([*finalists, *others]),
        },
        "forecast": {"error": search.forecast.error, "timed": len(search.forecast.timed)},
    }


@dataclass(frozen=True, slots=True)
class Judged:
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


def judged(finalists: Sequence[Finalist], target: Target, *, batch: int) -> Judged:
    """Choose among finalists."""
    best = answer(finalists, target, batch=batch)
    return Judged(
        tuple(finalists),
        target,
        batch,
        best,
        best_preset(finalists, target, batch=batch),
        on_front(finalists, best.finalist),
    )


def concluded(
    folder: RunFolder,
    found: Judged,
    reports: Mapping[str, Scored],
    *,
    cell: Cell,
    document: Json,
    lead: Paired | None = None,
) -> dict[str, Any]:
    """Write front and answer, and return what run.json says of them.

    reports  what is quoted, by schedule
    lead     the answer against the best published schedule, image by image of `report`
    """
    best = found.best
    policies = {
        f.trial.schedule_hash: _stamped(f, document).with_evidence(
            evidence(f, reports[f.trial.schedule_hash], cell, confirmed=_sure(f, best))
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
            summary(f, reports[f.trial.schedule_hash], front_member=f in found.members)
            for f in found.quoted
        ],
        "rivals": [],
        "cautions": cautions(found.finalists),
    }


def _confirmed(
    search: Search, evaluator: Evaluator, target: Target, limit: float
) -> tuple[Finalist, ...]:
    """Confirm what is chosen, and what their timings show to be better; fastest first."""
    waiting = list(choose(placed(search), limit=limit, off=search.forecast.error))
    most, finalists, began = len(waiting) + MORE, list[Finalist](), time.monotonic()
    search.listener.stage(f"confirming {len(waiting)} finalists on fresh images, by fresh timings")
    while waiting:
        finalists.append(confirm(waiting.pop(0), evaluator, search.objective))
        search.learn(finalists[-1].policy, finalists[-1].comparison)
        if not waiting and len(finalists) < most:
            more = overlooked(
                placed(search),
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
    search: Search, evaluator: Evaluator, finalists: Sequence[Finalist]
) -> dict[str, Scored]:
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


def _profiled(search: Search, evaluator: Evaluator, best: Answer) -> list[str]:
    """Profile, or go on without and say so: the result is known by then."""
    try:
        _profile(search, evaluator, best)
    except NO_REASON_TO_FAIL as error:
        for name in ("baseline", "answer"):  # those of another process, or one of two
            (search.folder.profiles / f"{name}.json").unlink(missing_ok=True)
        return [f"no profiles could be taken: {reason(error)}"]
    return []


def _profile(search: Search, evaluator: Evaluator, best: Answer) -> None:
    """Profile the un-reduced model and the answer."""
    search.listener.stage("profiling the un-reduced model and the answer")
    policies = {"baseline": Policy(search.proposals.model)}
    if best.finalist is not None:
        policies["answer"] = best.finalist.policy
    for found in evaluator.profile(policies, search.folder):
        search.folder.write_profile(found.name, profile_to_json(found))


def _short(search: Search) -> list[str]:
    """Say so where the search had no time to propose anything of its own."""
    own = any(trial.origin in {"seed", "sampler", "fastest"} for trial in search.trials)
    if own or search.out_of_reach or search.duplicates:
        return []
    return [
        f"the search had time for {len(search.trials)} trials and proposed none of them: allow "
        f"more --minutes or --trials"
    ]


def _counts(search: Search) -> dict[str, int]:
    states = [trial.state for trial in search.trials]
    return {
        "complete": states.count("complete"),
        "raced": states.count("raced"),
        "out_of_reach": search.out_of_reach,
        "duplicate": search.duplicates,
    }


def _rivals(
    search: Search,
    evaluator: Evaluator,
    found: Judged,
    *,
    limit: float,
    smaller: Contender | None,
) -> tuple[Rival, ...]:
    """Measure what else would be as fast; nothing where the un-reduced model is fast enough."""
    if found.best.outcome == "unreduced":
        return ()
    best = found.best.finalist
    policy = None if best is None else best.policy
    return rivals(evaluator, search.listener, limit=limit, answer=policy, smaller=smaller)


def _lead(evaluator: Evaluator, found: Judged) -> Paired | None:
    """Compare the answer with the best published schedule on the images that are quoted."""
    if found.best.finalist is None or found.preset is None:
        return None
    mine, theirs = (
        evaluator.answering.answers(one.policy, "report")
        for one in (found.best.finalist, found.preset)
    )
    return against(mine, theirs, evaluator.splits.report)


def _named(preset: Finalist | None, lead: Paired | None) -> dict[str, Any] | None:
    if preset is None:
        return None
    return {
        "name": preset.trial.origin,
        "schedule_hash": preset.trial.schedule_hash,
        "lead": None if lead is None else asdict(lead),
    }
