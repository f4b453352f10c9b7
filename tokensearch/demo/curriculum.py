"""The curriculum that the bundled model went through, stage by stage: `STAGES`, then `COUNTING`.

The model sees small windows of scenes first, and later only some of their patches. So it never has
to unlearn a scale, it learns to live without most of its patches, and a step costs a small part of
a full one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tokensearch.data.scenes import PATCH_PX, SCENE_PX, TALLY, Recipe

GRID = SCENE_PX // PATCH_PX  # patches along a side of a whole scene

# Wider than that of the splits, since there are only 997 digits to learn from.
HARD = Recipe(
    digit_px=(38.0, 92.0),
    rotation_degrees=16,
    shear=0.2,
    stretch=0.2,
    weight=(0.25, 0.55),
    softness=0.25,
)
BOLD = replace(HARD, weight=(0.18, 0.44))  # no thin strokes, which break
SOFT = replace(HARD, weight=(0.08, 0.32), softness=0.6)  # no filled holes either: like the splits
SMALL = replace(HARD, digit_px=(40.0, 60.0))  # reading is learned first where few patches hold it
PLAIN = replace(SMALL, plain_share=1.0)
MIXED = replace(SMALL, plain_share=0.5)


@dataclass(frozen=True)
class Stage:
    """One leg of the curriculum.

    Attributes:
        name: For the log.
        steps: Optimiser steps; 0 where a curriculum goes by the clock alone.
        recipe: What scenes look like.
        window_px: Side of the window of a 224-px scene that is shown.
        keep: Least and greatest share of patch tokens that a step keeps, drawn per step.
        rate: Learning rate at the start and at the end, a half cosine apart.
        batch: Scenes per step.
        warmup: Steps of linear warm-up.
        auxiliary: Weight of the auxiliary loss.
        quiet: Weight of what the class token knows half-way through the blocks. Without it a model
            gathers all that it needs in the first blocks, and whatever is dropped later is not
            missed.
        favour: How far patches under the digit go before others when some are dropped; with 1,
            others go first always.
        wander: Put the window at a random place of the grid of positions, not at its middle.
        share: Share of the time, where a curriculum goes by the clock.
        average: Decay of the running average of weights, per step; the average is what ships.
    """

    name: str
    steps: int
    recipe: Recipe
    window_px: int
    keep: tuple[float, float]
    rate: tuple[float, float]
    batch: int = 96
    warmup: int = 0
    auxiliary: float = 0.5
    quiet: float = 0.0
    favour: float = 0.0
    wander: bool = True
    share: float = 0.0
    average: float = 0.998  # about the last 500 steps

    def rate_at(self, progress: float, step: int) -> float:
        """Return the learning rate of a step, when `progress` of the stage is done, 0 to 1."""
        first, last = self.rate
        rate = last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
        return rate * min(1.0, (step + 1) / (self.warmup or 1))

    def view(self, ink: Tensor, draws: torch.Generator) -> tuple[tuple[int, int], Tensor]:
        """Draw the window's place in the grid, row and column, and its patches, (batch, tokens)."""
        grid = self.window_px // PATCH_PX
        row, column = torch.randint(0, GRID - grid + 1, (2,), generator=draws).tolist()
        if not self.wander:
            row = column = (GRID - grid) // 2
        low, high = self.keep
        share = low + (high - low) * float(torch.rand((), generator=draws))
        if share == 1:
            every = torch.arange(grid**2, device=ink.device)
            return (row, column), every.expand(self.batch, -1)
        order = torch.rand(self.batch, grid**2, generator=draws).to(ink.device)
        order += self.favour * (ink.flatten(1) > 0)
        return (row, column), order.argsort(1, descending=True)[:, : round(grid**2 * share)]


STAGES = (
    Stage("flat", 600, PLAIN, 64, (1.0, 1.0), (1e-3, 1e-3), warmup=50, wander=False),
    Stage("mixed", 400, MIXED, 64, (0.8, 1.0), (1e-3, 1e-3)),
    Stage("photographs", 400, HARD, 112, (0.5, 1.0), (1e-3, 9.3e-4), favour=0.5),
    Stage("fewer", 600, HARD, 112, (0.35, 0.8), (9.3e-4, 6.9e-4), batch=64, favour=0.7),
    Stage("long", 1000, HARD, 112, (0.4, 0.8), (8e-4, 4.5e-4), batch=64, favour=1.0),
    Stage("bold", 200, BOLD, 112, (0.4, 0.8), (4.5e-4, 3.8e-4), batch=64, favour=1.0),
    Stage("soft", 200, SOFT, 112, (0.4, 0.8), (4.5e-4, 3.9e-4), batch=64, favour=1.0),
    Stage("steady", 1200, SOFT, 112, (0.45, 0.85), (6e-4, 1.5e-4), batch=64, favour=1.0),
    Stage("clear", 800, SOFT, 112, (0.45, 0.9), (3.5e-4, 8e-5), batch=64, favour=1.0),
    Stage("whole", 400, SOFT, 224, (0.2, 0.6), (8e-5, 1.2e-5), batch=64, favour=0.6),
)

NINE = replace(TALLY, rotation_degrees=16, shear=0.2, stretch=0.2, weight=(0.1, 0.42))
# A quarter of a scene, for a quarter of the work.
FOUR = replace(NINE, cells=2, tallies=((2, 1, 1), (3, 1)))

# For a model that reads single digits: which of several occurs most often? Every token is kept, as
# models are trained that nobody meant to reduce.
COUNTING = (
    Stage(
        *("four", 1500, FOUR, 112, (1.0, 1.0), (9e-4, 5e-4), 64),
        warmup=50,
        quiet=0.3,
        share=0.35,
        average=0.99,
    ),
    Stage(
        *("nine", 1900, NINE, 224, (1.0, 1.0), (5e-4, 0.0), 16),
        quiet=0.5,
        share=0.65,
        average=0.99,
    ),
)

# By the clock, for any model and a GPU: the same ladder with fewer rungs and larger batches.
QUICK = (
    Stage(
        "flat", 0, PLAIN, 64, (1.0, 1.0), (1e-3, 1e-3), 512, warmup=200, wander=False, share=0.08
    ),
    Stage("mixed", 0, MIXED, 64, (0.8, 1.0), (1e-3, 1e-3), 512, share=0.08),
    Stage("photographs", 0, HARD, 112, (0.5, 1.0), (1e-3, 8e-4), 512, share=0.15, favour=0.7),
    Stage("clear", 0, SOFT, 112, (0.5, 1.0), (8e-4, 8e-4), 512, share=0.15, favour=1.0),
    Stage("four", 0, FOUR, 112, (1.0, 1.0), (8e-4, 5e-4), 512, quiet=0.3, share=0.19),
    Stage("nine", 0, NINE, 224, (1.0, 1.0), (5e-4, 1e-5), 256, quiet=0.5, share=0.35),
)
