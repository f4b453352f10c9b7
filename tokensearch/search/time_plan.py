"""How the seconds of a run are shared out, and how many images and finalists they are enough for.

Decided before anything is searched, from how long an image and a pass of the baseline take here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import inf
from statistics import median
from time import monotonic, perf_counter

import torch
from torch import Tensor

from tokensearch.data.splits import PURPOSES, Images, Purpose, Split, Splits
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.evaluation.predictions import CHUNK
from tokensearch.measure.cautions import ENOUGH_PASSES
from tokensearch.policy import Goal
from tokensearch.progress import ProgressListener
from tokensearch.stats.bootstrap import TRIAL_PAIRS, VERDICT_PAIRS
from tokensearch.stats.interval import design_effect, paired_difference

# Shares of a run's seconds, in order. A stage that needs less leaves the rest to those after it.
SHARES: Mapping[str, float] = {
    "reading": 0.10,  # images, and the baseline's predictions on those of `search`
    "sweep": 0.12,
    "search": 0.33,
    "confirming": 0.20,  # on images of `select`, and by the clock, side by side
    "quoting": 0.20,  # on images of `report`
    "profiling": 0.05,
}
SCORING = 0.5  # of the time for confirming; the rest is for the clock
SURE = 0.9  # of the time by the clock is planned: a tenth more must not leave passes too few
CONFIRM_SECONDS = 3.0  # of passes, for each policy of a session of timing
LEAST_FINALISTS = 4  # the baseline, the likely answer, a spare, a rival
MOST_FINALISTS = 16
LEAST_TRIALS = 3  # however short the time: a run is to hand back a policy
REDUCED = 0.6  # time of a finalist's pass on average, as a share of the baseline's
# Passes that profiles of baseline and answer take at least: a dozen rounds of both, plain and
# split, and those under the profiler, which take twice as long.
PROFILE_PASSES = 60
WARMUP = 3  # rounds of a session that are not counted
PACE_IMAGES = 16  # read, and predicted for, to know how long they take
PACE_PASSES = 3  # counted, after one that is not; the median leaves out one that was disturbed


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast this machine is with the baseline."""

    read_s: float  # an image
    predict_s: float  # an image, in the chunks in which predictions are made
    pass_s: float  # of the batch that is timed


@dataclass(frozen=True, slots=True)
class TimePlan:
    """What a run may take; without seconds nothing is bounded."""

    seconds: float | None = None
    began: float = field(default_factory=monotonic)
    finalists: int = MOST_FINALISTS
    confirm_seconds: float = CONFIRM_SECONDS
    pass_s: float = 0.0  # of the baseline, once it was timed
    least_s: float = 0.0  # that the least of a run takes at the pace of its beginning
    earlier: float = 0.0  # seconds that stopped processes spent on this run's trials

    def share(self, stage: str) -> float:
        """Return the seconds of a stage."""
        return inf if self.seconds is None else SHARES[stage] * self.seconds

    def end_of(self, stage: str) -> float:
        """Return the second of the run by which a stage is to end."""
        stages = list(SHARES)
        return sum(self.share(name) for name in stages[: stages.index(stage) + 1])

    @property
    def elapsed(self) -> float:
        """Seconds that the run has taken, with trials of stopped processes."""
        return self.earlier + monotonic() - self.began

    def is_over(self, stage: str) -> bool:
        """Whether the time of a stage is up."""
        return self.elapsed >= self.end_of(stage)

    @property
    def allows_profiles(self) -> bool:
        """Whether there is time for the passes of the shortest profiles."""
        left = self.end_of("profiling") - self.elapsed
        return left > max(0.0, PROFILE_PASSES * self.pass_s)

    def count_rounds(self, models: int, *, until: str = "confirming") -> int:
        """Return how many rounds a session of timing takes at least.

        As many as there is time for, up to those that need no wider interval (`ENOUGH_PASSES`): a
        machine that others slow down keeps to its time.

        models  that are timed beside the baseline
        until   the stage by whose end the session is to be over
        """
        if self.seconds is None or not self.pass_s:
            return ENOUGH_PASSES
        left = self.end_of(until) - self.elapsed
        fitting = left / session_s(models, 1 - WARMUP, self.pass_s) - WARMUP
        return int(max(VERDICT_PAIRS, min(ENOUGH_PASSES, fitting)))

    def describe(self, splits: Splits, asked: Splits) -> str:
        """Say how the seconds are shared out, and what they are enough for."""
        shares = ", ".join(f"{stage} {self.share(stage):.0f} s" for stage in SHARES)
        counts = [
            f"{len(splits.of(purpose))} of {len(asked.of(purpose))} images to {purpose} on"
            for purpose in PURPOSES
            if len(splits.of(purpose)) < len(asked.of(purpose))
        ]
        fewer = f"; enough for {', '.join(counts)}" if counts else ""
        left = "what a stage leaves goes to those after it"
        least = self._describe_least()
        return f"at most {shares} ({left}), {self.finalists} finalists{fewer}{least}"

    def _describe_least(self) -> str:
        """Say so where what a run does at least takes longer than was asked."""
        if self.seconds is None or self.least_s <= self.seconds:
            return ""
        return (
            f"; what a run does at least ({LEAST_TRIALS} policies, {CHUNK} images of each split, "
            f"two sessions of {VERDICT_PAIRS} rounds) is estimated at {self.least_s:.0f} s by the "
            f"first passes, and takes longer where the machine slows down"
        )


def warn_few_images(goal: Goal, select: Split, listener: ProgressListener) -> None:
    """Say so where no policy could be shown to keep the bound by being right on the same images."""
    images = len(select)
    shared = design_effect([1.0] * images, select.groups) if select.groups else 1.0
    known = -paired_difference(0, 0, images / shared)[0]
    if goal.max_drop is not None and known > goal.max_drop:
        listener.caution(
            f"on {images} images to select on, the loss of a policy that is right on the same ones "
            f"is only known to be under {100 * known:.1f} points, and not under "
            f"{100 * goal.max_drop:g}: allow more --minutes, or give more --images"
        )


def measure_pace(evaluator: PolicyEvaluator) -> Pace:
    """Time reading an image, and passes of the baseline once the device is warm."""
    split = evaluator.splits.search
    began = perf_counter()
    images, _ = split.part(0, min(PACE_IMAGES, len(split)))
    read_s = (perf_counter() - began) / len(images)
    own = images.to(evaluator.images.device, evaluator.images.dtype)
    predict_s = _pass_s(evaluator, own) / len(images)
    return Pace(read_s, predict_s, _pass_s(evaluator, evaluator.images))


def session_s(models: int, rounds: int, pass_s: float) -> float:
    """Return the seconds of a session that times so many models beside the baseline."""
    return (rounds + WARMUP) * (1 + REDUCED * models) * pass_s


def estimate_least_s(pace: Pace) -> float:
    """Return the seconds of the least that a run does, however short the time."""
    reduced = 1 + REDUCED * (LEAST_TRIALS - 1)  # policies, in passes of the baseline
    scoring = CHUNK * (2 * len(PURPOSES) * pace.read_s + len(PURPOSES) * reduced * pace.predict_s)
    trials = LEAST_TRIALS * session_s(1, TRIAL_PAIRS, pace.pass_s)
    return scoring + trials + 2 * session_s(LEAST_FINALISTS, VERDICT_PAIRS, pace.pass_s)


@torch.inference_mode()
def _pass_s(evaluator: PolicyEvaluator, images: Tensor) -> float:
    evaluator.model(images).cpu()  # waits for the device, here and below
    passes = []
    for _ in range(PACE_PASSES):
        began = perf_counter()
        evaluator.model(images).cpu()
        passes.append(perf_counter() - began)
    return median(passes)


def fit_plan(plan: TimePlan, pace: Pace) -> TimePlan:
    """Return the plan with as many finalists, timed for as long, as there is time for."""
    clock_s = (1 - SCORING) * plan.share("confirming")
    baseline_s = session_s(0, ENOUGH_PASSES, pace.pass_s)
    affordable = (SURE * clock_s / baseline_s - 1) / REDUCED
    finalists = int(max(LEAST_FINALISTS, min(MOST_FINALISTS, affordable)))
    return replace(
        plan,
        finalists=finalists,
        confirm_seconds=min(CONFIRM_SECONDS, clock_s / finalists),
        pass_s=pace.pass_s,
        least_s=estimate_least_s(pace),
    )


def count_images(plan: TimePlan, pace: Pace, asked: Splits) -> dict[Purpose, int]:
    """Return how many images of each split there is time for, in whole chunks.

    Each is read twice: for its name, and to be predicted for.
    """
    alone = 2 * pace.read_s + pace.predict_s
    by_all = 2 * pace.read_s + (1 + plan.finalists * REDUCED) * pace.predict_s
    affordable = {
        "search": plan.share("reading") / alone,
        "select": SCORING * plan.share("confirming") / by_all,
        "report": plan.share("quoting") / by_all,
    }
    return {
        purpose: min(len(asked.of(purpose)), _whole_chunks(affordable[purpose]))
        for purpose in PURPOSES
    }


def take_first(splits: Splits, counts: Mapping[Purpose, int]) -> Splits:
    """Return the splits with their first images alone, of which every prefix is a fair sample."""
    search, select, report = (_first(splits.of(name), counts[name]) for name in PURPOSES)
    return replace(splits, search=search, select=select, report=report)


def _first(split: Split, count: int) -> Split:
    if count >= len(split):
        return split
    digest = sha256(f"{split.digest} first {count}".encode()).hexdigest()
    return replace(split, dataset=_FirstImages(split.dataset, count), digest=f"sha256:{digest}")


@dataclass(frozen=True, slots=True)
class _FirstImages:
    """The first images of a data set."""

    images: Images
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index]


def _whole_chunks(images: float) -> int:
    return 2**53 if images == inf else max(CHUNK, CHUNK * int(images / CHUNK))
