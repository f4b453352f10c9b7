"""Measure what token counts and reduction steps cost, in whole passes of designed schedules.

Every round runs the baseline; one trial, which is timed whole and kept from all fits of
parts, to say what predictions are worth; two schedules that only cut tokens off; two with real
operators. All blocks have the same geometry, so that a pass gives a dozen samples of each half.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from random import Random
from statistics import median
from typing import get_args

import torch
from torch import Tensor, nn

from tokensearch.costs.design import ON_REQUEST, OPERATORS, Design
from tokensearch.costs.fit import (
    Round,
    SplitPass,
    fit_calibration,
    fit_costs,
    fit_launches,
    level_rounds,
)
from tokensearch.costs.passes import ModelPasses, Queue, SweepPasses
from tokensearch.costs.table import UNCALIBRATED, CostTable
from tokensearch.errors import MeasurementError
from tokensearch.policy import CLASS_SCORES, Policy, Score
from tokensearch.policy.steps import LEARNED
from tokensearch.profiling import SPLIT
from tokensearch.progress import ProgressListener
from tokensearch.records.measurements import Cell
from tokensearch.runtime import describe
from tokensearch.runtime.host import has_class_token, reads_prefix_only

SECONDS = 150.0
WARMUP = 3  # uncounted passes of the baseline
FLOORS, REDUCINGS = 2, 2  # per round
TRIALS = 8  # schedules: enough for a line and its error, few enough to time each often
# Where passes take milliseconds there is time for more: of so many schedules the worst says more.
QUEUED_TRIALS = 24
PASSES_PER_ROUND = 1 + FLOORS + REDUCINGS + 1


def sweep(
    model: nn.Module,
    *,
    images: Tensor,
    cell: Cell,
    seconds: float = SECONDS,
    seed: int = 0,
    operators: Collection[str] | None = None,
    asked: Collection[str] = (),
    least_rounds: int | None = None,
    listener: ProgressListener | None = None,
) -> CostTable:
    """Return the cost table of `model` in `cell`.

    images        (B, 3, rows, columns) on the cell's device, in its number type
    operators     names as in `costs.OPERATORS`; None: all but those on request, where the model
                  allows them
    asked         operators and scores (`score NAME`) to be swept beside the usual
    least_rounds  as for `run_sweep`

    MeasurementError for a cell whose passes cannot be split: compiled, or with caches emptied in
    between.
    """
    if cell.backend not in SPLIT or cell.cache != "warm":
        raise MeasurementError(
            f"a sweep splits passes by block, which takes {' or '.join(SPLIT)} and warm caches; "
            f"the cell has backend {cell.backend} and cache {cell.cache}"
        )
    design = make_design(model, seed=seed, operators=operators, asked=asked)
    with torch.inference_mode():
        passes = ModelPasses(model, images, cell)
        return run_sweep(
            passes,
            design,
            cell=cell,
            seconds=seconds,
            seed=seed,
            least_rounds=least_rounds,
            listener=listener,
            queue=passes.queue,
        )


def make_design(
    model: nn.Module,
    *,
    seed: int = 0,
    operators: Collection[str] | None = None,
    asked: Collection[str] = (),
) -> Design:
    """Return a design of what `model` can follow."""
    by_class = has_class_token(model)
    left_out = ON_REQUEST - set(asked)
    usable = [score for score in get_args(Score) if score != LEARNED]
    if not by_class:
        usable = [score for score in usable if score not in CLASS_SCORES]
    scores = [score for score in usable if f"score {score}" not in left_out]
    wanted = set(OPERATORS) - left_out if operators is None else set(operators)
    if unknown := wanted - set(OPERATORS):
        raise MeasurementError(
            f"operator {min(unknown)!r} is unknown; known are {', '.join(OPERATORS)}"
        )
    allowed = [name for name in OPERATORS if name in wanted]
    if not by_class:
        allowed = [name for name in allowed if name != "prune_or_pool"]
    return Design(describe(model), scores, allowed, reads_prefix_only(model), Random(seed))


def run_sweep(
    passes: SweepPasses,
    design: Design,
    *,
    cell: Cell,
    seconds: float,
    seed: int,
    least_rounds: int | None = None,
    listener: ProgressListener | None = None,
    queue: Queue | None = None,
) -> CostTable:
    """Run rounds until the seconds are over, and fit a table to them.

    least_rounds  run even beyond the seconds; None: until each trial was timed once
    queue         where a host enqueues what a device executes later
    """
    whole = Policy(design.model)
    for _ in range(WARMUP):
        passes.whole_ms(whole)
    trials = design.trials(TRIALS if queue is None else QUEUED_TRIALS)
    rounds: list[Round] = []
    least = len(trials) if least_rounds is None else least_rounds
    while len(rounds) < least or passes.elapsed_s() < seconds:
        rounds.append(_round(passes, design, trials[len(rounds) % len(trials)], queue))
        if listener is not None:
            least_s = passes.elapsed_s() * least / len(rounds)
            _tell(listener, passes.elapsed_s(), max(seconds, least_s), len(rounds))
    return _table(rounds, design, cell=cell, seconds=passes.elapsed_s(), seed=seed)


def _round(passes: SweepPasses, design: Design, trial: Policy, queue: Queue | None) -> Round:
    """Run one round: the baseline, right after it the trial, then the rest."""
    baseline_ms, trial_ms = passes.whole_ms(Policy(design.model)), passes.whole_ms(trial)
    kinds = [True] * FLOORS + [False] * REDUCINGS
    design.random.shuffle(kinds)
    splits = []
    for floor in kinds:
        policy = design.floor() if floor else design.reducing()
        splits.append(SplitPass(policy, floor, passes.split_ms(policy, floor=floor)))
    plain = [Policy(design.model), trial, *(one.policy for one in splits if not one.floor)]
    enqueued = () if queue is None else tuple((one, queue.enqueue_ms(one)) for one in plain)
    return Round(baseline_ms, tuple(splits), (trial, trial_ms), enqueued)


def _table(
    rounds: Sequence[Round], design: Design, *, cell: Cell, seconds: float, seed: int
) -> CostTable:
    level = level_rounds(rounds)
    curves, prices = fit_costs(level, blocks=design.model.blocks)
    table = CostTable(
        model=design.model,
        cell=cell,
        baseline_ms=median(one.baseline_ms for one in level),
        curves=curves,
        prices=prices,
        calibration=UNCALIBRATED,
        passes=PASSES_PER_ROUND * len(rounds),
        seconds=seconds,
        seed=seed,
        launches=fit_launches(level),
    )
    # A short sweep may never have come to an operator that a trial draws: that trial is left out.
    priced = [one for one in level if _predicts(table, one.trial[0])]
    return replace(table, calibration=fit_calibration(table.path, priced, Policy(design.model)))


def _predicts(table: CostTable, policy: Policy) -> bool:
    try:
        table.predict(policy)
    except MeasurementError:
        return False
    return True


def _tell(listener: ProgressListener, elapsed_s: float, seconds: float, rounds: int) -> None:
    done, total = min(round(elapsed_s), round(seconds)), max(1, round(seconds))
    text = f"{PASSES_PER_ROUND * rounds} passes"
    listener.progress(done=done, total=total, seconds_left=max(0.0, seconds - elapsed_s), text=text)
