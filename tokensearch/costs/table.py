"""The cost table: what every part of a pass costs in one cell, and so what any policy would.

No torch: a report or a search on another machine may ask it. Times are milliseconds of a pass of
the cell's batch. A prediction steers; what is reported is timed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tokensearch.costs.curves import Curve
from tokensearch.costs.launch_queue import Launches, Path, paths
from tokensearch.costs.parts import CURVES, Part, parts_of
from tokensearch.costs.prices import Price
from tokensearch.errors import MeasurementError
from tokensearch.policy import ModelSpec, Policy
from tokensearch.records.measurements import Cell

# A fit's fixed part may be below 0, and so may the deepest schedules be. None does less than the
# first half of one block, and the largest models have some hundred halves.
LEAST_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class CheckedPrediction:
    """A schedule that was timed whole during the sweep, but given to no fit of its parts."""

    schedule_hash: str
    parts_ms: float  # what its parts add up to, of those that launches do not hide
    measured_ms: float  # plain passes, in turn with the baseline
    passes: int
    launches_ms: float = 0.0  # ... and of the launches that show


@dataclass(frozen=True, slots=True)
class Calibration:
    """From stamped parts to plain passes: milliseconds = fixed_ms + scale x the sum of the parts.

    Of those that launches do not hide, where a host enqueues them; launches are not scaled.

    Stamps and open blocks cost a little per part, which plain passes do not pay.
    """

    fixed_ms: float
    scale: float
    trials: tuple[CheckedPrediction, ...]
    error: float  # mean relative error of each trial's ratio, calibrated without that trial
    worst: float  # the largest of them


UNCALIBRATED = Calibration(fixed_ms=0.0, scale=1.0, trials=(), error=0.0, worst=0.0)


@dataclass(frozen=True, slots=True)
class BlockCost:
    """What one block costs under a policy, as calibrated, in milliseconds."""

    block: int
    attention_ms: float
    reducing_ms: float  # scoring, selecting, gathering, merging
    mlp_ms: float

    @property
    def ms(self) -> float:
        """The whole block."""
        return self.attention_ms + self.reducing_ms + self.mlp_ms


@dataclass(frozen=True)
class CostTable:
    """What was measured of one model in one cell."""

    model: ModelSpec
    cell: Cell
    baseline_ms: float  # median plain pass of the baseline during the sweep
    curves: tuple[Curve, ...]
    prices: tuple[Price, ...]
    calibration: Calibration
    passes: int
    seconds: float  # that the sweep took
    seed: int
    launches: Launches | None = None  # where a host enqueues what a device executes later

    def predict(self, policy: Policy) -> float:
        """Return the milliseconds of a plain pass under `policy`.

        MeasurementError if the policy is for another geometry, or has an operator that the sweep
        has not measured.
        """
        self._check(policy)
        path = self.path(policy, self.calibration.scale)
        found_ms = self.calibration.fixed_ms + path.ms(self.calibration.scale)
        return max(found_ms, LEAST_SHARE * self.baseline_ms)

    def path(self, policy: Policy, scale: float = 1.0) -> Path:
        """Return the slowest way through a pass whose parts take `scale` times as long."""
        return list(self._paths(policy, scale))[-1]

    def ratio(self, policy: Policy) -> float:
        """Return the share of the baseline's pass that a pass under `policy` takes."""
        return self.predict(policy) / self.predict(Policy(self.model))

    def blocks(self, policy: Policy) -> tuple[BlockCost, ...]:
        """Return what each block costs; the rest of `predict` is stem, head and what is fixed."""
        self._check(policy)
        halves = [{"attention": 0.0, "reducing": 0.0, "mlp": 0.0} for _ in range(self.model.blocks)]
        scale, before_ms = self.calibration.scale, 0.0
        for part, path in zip(parts_of(policy), self._paths(policy, scale), strict=True):
            if part.block is not None:
                halves[part.block][part.half] += path.ms(scale) - before_ms
            before_ms = path.ms(scale)
        return tuple(
            BlockCost(block, half["attention"], half["reducing"], half["mlp"])
            for block, half in enumerate(halves)
        )

    def curve(self, name: str) -> Curve:
        """Return the costs of one half of a block by its patch tokens."""
        return self._curves[name]

    @property
    def operators(self) -> tuple[str, ...]:
        """Names of the scores and operators that were measured."""
        kinds = ("score ", "prune", "pool ")
        return tuple(price.name for price in self.prices if price.name.startswith(kinds))

    def _paths(self, policy: Policy, scale: float) -> Iterator[Path]:
        return paths((self._ms(part) for part in parts_of(policy)), scale)

    def _ms(self, part: Part) -> tuple[float, float]:
        """What host and device take."""
        if part not in self._looked_up:
            device_ms = (
                self._curves[part.name].of(part.n_in, part.block)
                if part.name in CURVES
                else self._prices[part.name].of(part.n_in, part.n_out)
            )
            host_ms = 0.0 if self.launches is None else self.launches.of(part, self.model)
            self._looked_up[part] = host_ms, device_ms
        return self._looked_up[part]

    def _check(self, policy: Policy) -> None:
        if policy.model.geometry != self.model.geometry:
            raise MeasurementError(
                f"the costs are those of {_said(self.model)}; the policy is for "
                f"{_said(policy.model)}"
            )
        missing = next(self._missing(policy), None)
        if missing is not None:
            raise MeasurementError(
                f"the policy needs {missing!r}, which the sweep has not measured; it measured "
                f"{', '.join(self.operators)}"
            )

    def _missing(self, policy: Policy) -> Iterator[str]:
        known = self._curves.keys() | self._prices.keys()
        return (part.name for part in parts_of(policy) if part.name not in known)

    @cached_property
    def _looked_up(self) -> dict[Part, tuple[float, float]]:
        """Parts that were asked for before: a search asks for the same again and again."""
        return {}

    @cached_property
    def _curves(self) -> dict[str, Curve]:
        return {curve.name: curve for curve in self.curves}

    @cached_property
    def _prices(self) -> dict[str, Price]:
        return {price.name: price for price in self.prices}


def _said(model: ModelSpec) -> str:
    blocks, patches, prefix, width = model.geometry
    return f"{model.name} ({blocks} blocks, {patches} + {prefix} tokens, width {width})"
