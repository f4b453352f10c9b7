"""A run folder made by hand from the real records: every figure is chosen, none is measured."""

from dataclasses import replace
from pathlib import Path

from tests.cells import CELL
from tests.report.profiles import Parts, profile
from tokensearch.policy import (
    Evidence,
    ModelSpec,
    Outcome,
    Policy,
    PolicySet,
    Pool,
    Prune,
    parse_target,
    preset,
    save_set,
)
from tokensearch.policy.file import policy_to_json
from tokensearch.records.measurements import (
    Accuracy,
    AccuracyKind,
    AlternativeKind,
    Caution,
    Comparison,
    Latency,
    PairedAccuracy,
    Trial,
    Verdict,
    to_json,
)
from tokensearch.records.policy_evaluation import CountSpread, PolicyEvaluation
from tokensearch.records.profile import Profile, Scope
from tokensearch.records.profile_file import profile_to_json
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import (
    Alternative,
    BaselineMoved,
    Finalist,
    ForecastError,
    Rival,
    RunData,
    RunDocument,
    RunEnvironment,
    RunResult,
    SplitInfo,
    TrialCounts,
)
from tokensearch.records.run_settings import SearchBudget, SearchSettings

SPEC = ModelSpec("demo", blocks=12, patch_tokens=196, prefix_tokens=1, width=128)
BASELINE_MS = 40.0
ENVIRONMENT = RunEnvironment(
    started="2026-11-28T09:30:00+00:00",
    program="tokensearch 0.1.0",
    host="bench-3",
    memory_bytes=16 * 2**30,
)
FOUND = Policy(
    SPEC,
    (Prune(2, 120), Prune(5, 80), Pool(5, 64), Pool(8, 32)),
    proportional_attention=True,
    last_block="prefix_only",
)
MILD = Policy(SPEC, (Prune(3, 150), Pool(7, 110)), last_block="prefix_only")
BASELINE = Policy(SPEC)


def latency(median_ms: float) -> Latency:
    """Twenty passes around a median."""
    return Latency(tuple(median_ms * (1 + 0.001 * (i % 5 - 2)) for i in range(20)), warmup=3)


def comparison(ratio: float, reach: float = 0.01, verdict: Verdict = "faster") -> Comparison:
    return Comparison(
        baseline=latency(BASELINE_MS),
        candidate=latency(ratio * BASELINE_MS),
        ratio=ratio,
        low=ratio - reach,
        high=ratio + reach,
        level=0.95,
        verdict=verdict,
    )


def accuracy(right: int, split: str = "report", kind: AccuracyKind = "top1") -> Accuracy:
    share = right / 1000
    return Accuracy(
        kind=kind,
        split=split,
        split_hash=f"sha256:{split}0123456789",
        images=1000,
        right=right,
        low=share - 0.008,
        high=min(1.0, share + 0.007),
        level=0.95,
        kl=(1000 - right) / 10_000,
        ce=(1000 - right) / 5_000,
        agreed=right,
    )


def paired(right: int, baseline: int = 981) -> PairedAccuracy:
    difference = (right - baseline) / 1000
    return PairedAccuracy(
        images=1000,
        only_baseline=max(0, baseline - right) + 4,
        only_candidate=max(0, right - baseline) + 4,
        p_value=0.0215 if difference else 1.0,
        difference=difference,
        low=difference - 0.006,
        high=difference + 0.006,
        level=0.95,
    )


def evaluated_policy(
    *, cautions: tuple[Caution, ...] = (), spreads: tuple[CountSpread, ...] | None = None
) -> PolicyEvaluation:
    """A policy that is evaluated by itself, by its agreement with the baseline."""
    return PolicyEvaluation(
        policy="mild.json",
        provenance={"origin": "sampler"},
        schedule_hash=MILD.schedule_hash,
        patch_tokens_per_block=MILD.patch_tokens_per_block,
        patch_tokens_after_block=MILD.patch_tokens_after_block,
        cell=CELL,
        data="photographs",
        accuracy=accuracy(973, kind="agreement"),
        paired=paired(973),
        comparison=replace(comparison(0.48), cautions=cautions),
        patch_tokens_by_image=spreads,
    )


class Entry:
    """One finalist: a policy, its right answers of 1000, and its share of the baseline's time."""

    def __init__(self, origin: str, policy: Policy, right: int, ratio: float) -> None:
        self.origin, self.policy, self.right, self.ratio = origin, policy, right, ratio
        self.timed = comparison(ratio, verdict="faster" if ratio < 0.98 else "same")

    def finalist(self, *, on_front: bool, kind: AccuracyKind) -> Finalist:
        return Finalist(
            origin=self.origin,
            policy=self.policy,
            search=accuracy(self.right - 2, "search", kind),
            select=accuracy(self.right + 1, "select", kind),
            report=accuracy(self.right, kind=kind),
            paired=paired(self.right),
            comparison=self.timed,
            on_front=on_front,
        )

    def member(self, kind: AccuracyKind) -> Policy:
        evidence = Evidence(
            cell=to_json(CELL),
            latency=to_json(self.timed.candidate),
            accuracy=to_json(accuracy(self.right, kind=kind)),
            baseline=to_json(self.timed.baseline),
            confirmed=True,
            extra={
                "comparison": {
                    name: getattr(self.timed, name)
                    for name in ("ratio", "low", "high", "level", "verdict")
                }
                | dict.fromkeys(("low_ms", "high_ms"), self.timed.candidate.median_ms),
                "paired": to_json(paired(self.right)),
                "select": to_json(accuracy(self.right + 1, "select", kind)),
                "choice": {
                    "right": f"{(1 << 1000) - (1 << (999 - self.right)):x}",
                    "kl_low": 0.0,
                    "kl_high": 0.1,
                },
                "objective": "kl",
            },
        )
        return self.policy.with_evidence(evidence)


ENTRIES = (
    Entry("sampler", FOUND, 973, 0.48),
    Entry("tome-r16", preset("tome-r16", SPEC), 952, 0.496),
    Entry("seed", MILD, 979, 0.72),
    Entry("random-tome-r16", preset("random-tome-r16", SPEC), 870, 0.47),
    Entry("none", BASELINE, 981, 1.0),
)
FRONT = ("sampler", "seed", "none")
TARGETS = {"met": "0.5x", "missed": "0.4x", "ambiguous": "0.485x", "unreduced": "50ms"}
LIMITS_MS = {"met": 20.0, "missed": 16.0, "ambiguous": 19.4, "unreduced": 50.0}


def alternatives(kind: AccuracyKind, *, answered: bool = True) -> tuple[Alternative, ...]:
    """The same model on smaller images, and a smaller one."""
    smaller: tuple[tuple[str, AlternativeKind, int, int, float], ...] = (
        ("160 px", "resolution", 160, 931, 0.45),
        ("deit_t", "model", 224, 958, 0.49),
    )
    return tuple(
        Alternative(
            name=name,
            kind=what,
            pixels=pixels,
            report=accuracy(right, kind=kind),
            paired=paired(right),
            comparison=comparison(ratio),
            lead=paired(973, right) if answered else None,
        )
        for name, what, pixels, right, ratio in smaller
    )


def run_settings(target: str) -> SearchSettings:
    return SearchSettings(
        model="demo",
        checkpoint=None,
        data=None,
        target=parse_target(target),
        device="cpu",
        dtype="float32",
        batch=8,
        resolution=224,
        backend="eager",
        space="default",
        space_digest="sha256:fedcba9876543210",
        seed=0,
        sampler="local",
        objective="kl",
    )


def run_result(outcome: Outcome, kind: AccuracyKind) -> RunResult:
    answers = {
        "met": FOUND.schedule_hash,
        "ambiguous": FOUND.schedule_hash,
        "missed": None,
        "unreduced": BASELINE.schedule_hash,
    }
    tome = preset("tome-r16", SPEC).schedule_hash
    best = Rival("tome-r16", tome, lead=paired(973, 952))
    return RunResult(
        outcome=outcome,
        limit_ms=LIMITS_MS[outcome],
        baseline_ms=BASELINE_MS,
        answer_hash=answers[outcome],
        as_good=(FOUND.schedule_hash, tome) if outcome == "met" else (),
        best_preset=best if outcome in {"met", "unreduced"} else None,
        finalists=tuple(
            entry.finalist(on_front=entry.origin in FRONT, kind=kind) for entry in ENTRIES
        ),
        alternatives=()
        if outcome == "unreduced"
        else alternatives(kind, answered=outcome != "missed"),
        cautions=("passes differ widely: stop other work on the machine, or time more pairs",),
        search_seconds=171.4,
        trials=TrialCounts(complete=31, raced=17, out_of_reach=120, duplicate=3),
        baseline_moved=BaselineMoved(search=0.052, finalists=0.013),
        forecast=ForecastError(error=0.021, timed=26),
        seconds=208.9,
    )


def run_document(*, outcome: Outcome = "met", labelled: bool = True) -> RunDocument:
    """What run.json holds of a run that has ended."""
    splits = {
        name: SplitInfo(images, f"sha256:{name}0123456789")
        for name, images in (("search", 512), ("select", 500), ("report", 1000))
    }
    return RunDocument(
        settings=run_settings(TARGETS[outcome]),
        budget=SearchBudget(trials=60, seconds=180.0),
        command="tokensearch run --model demo --latency-target 0.5x --seed 0",
        model=replace(SPEC, weights="sha256:0011223344556677"),
        cell=CELL,
        environment=ENVIRONMENT,
        data=RunData("digit scenes", labelled, splits),
        result=run_result(outcome, "top1" if labelled else "agreement"),
    )


def front(*, labelled: bool = True) -> PolicySet:
    kind: AccuracyKind = "top1" if labelled else "agreement"
    return PolicySet(tuple(entry.member(kind) for entry in ENTRIES if entry.origin in FRONT))


def host_ms(policy: Policy) -> Parts:
    """Time of the host's own phases: as the tokens that they work on."""
    sites = [policy.model.patch_tokens, *policy.patch_tokens_per_block]
    shares = [count / policy.model.patch_tokens for count in sites]
    parts: dict[Scope, float] = {(None, "stem"): 1.5, (None, "head"): 1.0}
    for block in range(policy.model.blocks):
        entering, leaving = shares[block : block + 2]
        parts |= {(block, "attention"): 1.2 * entering, (block, "mlp"): 1.9 * leaving}
    return parts


def run_profiles() -> tuple[Profile, Profile]:
    """The baseline, and the answer with what reduction costs it."""
    before, after = host_ms(BASELINE), host_ms(FOUND)
    spent: Parts = {
        (2, "scoring"): 0.11,
        (5, "selecting"): 0.35,
        (5, "merging"): 0.2,
        (8, "selecting"): 0.28,
    }
    own = {**after, **spent, (6, "attention"): after[6, "attention"] + 0.05}
    return (
        profile(BASELINE, before, name="baseline", plain_ms=39.7, traced_ms=(41.3,)),
        profile(
            FOUND,
            own,
            name="answer",
            plain_ms=sum(own.values()) - 0.1,
            floor=after,
            # Every phase has noise, as real ones do: what rounding leaves differs by processor.
            noise={**{scope: 0.001 * ms for scope, ms in own.items()}, (9, "mlp"): 0.03},
            traced_ms=(26.0,),
        ),
    )


def trials() -> list[Trial]:
    """A cloud along the front."""
    made = []
    for number in range(30):
        ratio = 0.42 + 0.55 * (number * 7 % 30) / 30
        right = round(980 - 260 * (1 - ratio) ** 2 - 3 * (number * 11 % 13))
        raced = number % 6 == 5
        made.append(
            Trial(
                number=number,
                origin="sampler",
                schedule_hash=f"sha256:{number:064x}",
                state="raced" if raced else "complete",
                predicted=ratio,
                comparison=None if raced else comparison(ratio),
                accuracy=accuracy(right, "search"),
                seconds=3.5,
                policy=policy_to_json(MILD),
            )
        )
    return made


def run_folder(
    path: Path, *, outcome: Outcome = "met", labelled: bool = True, profiles: bool = True
) -> RunFolder:
    """Write all of it."""
    folder = RunFolder(path)
    folder.create()
    folder.write_run(run_document(outcome=outcome, labelled=labelled))
    save_set(front(labelled=labelled), folder.front)
    for trial in trials():
        folder.append_trial(trial)
    for taken in run_profiles() if profiles else ():
        folder.write_profile(taken.name, profile_to_json(taken))
    return folder
