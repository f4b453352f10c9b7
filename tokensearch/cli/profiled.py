"""Profiles of what a command was given: those that exist, and those that are taken on the spot."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tokensearch.cli.console import caution, err
from tokensearch.cli.files import made
from tokensearch.errors import RunError
from tokensearch.policy import Policy, preset
from tokensearch.profiles import Profile

if TYPE_CHECKING:
    from tokensearch.cli.subject import DTypeName
    from tokensearch.cli.timed import Timed
    from tokensearch.records import Backend

# Rounds: below the least an interval says little; the most is never reached before the seconds.
WARMUP_ROUNDS, LEAST_ROUNDS, MOST_ROUNDS = 3, 12, 5000
# A diff is done early when its ratio is known so well, and the ledger closes so surely.
RATIO_REACH, CLOSING_REACH = 0.005, 0.02
TRACES = "tensorboard"  # the folder, within that of the profiles
AGAIN = " again"  # what a side is called that is compared with itself


@dataclass(frozen=True, slots=True)
class Asked:
    """The model and the cell in which something is profiled on the spot."""

    model: str
    device: str
    dtype: "DTypeName"
    batch: int
    backend: "Backend"
    seed: int
    rescale: bool = False

    def beside(self, sides: Sequence[Policy | Profile | str]) -> "Asked":
        """The same in the cell of a stored profile, if there is one to be compared with."""
        for side in sides:
            if isinstance(side, Profile):
                cell = side.cell
                kind = cast("DTypeName", cell.dtype)
                return replace(self, dtype=kind, batch=cell.batch, backend=cell.backend)
        return self

    def timed(self) -> "Timed":
        """Prepare the model, and say which it is."""
        from tokensearch.cli.timed import timed

        ready = timed(
            self.model,
            device=self.device,
            dtype=self.dtype,
            batch=self.batch,
            backend=self.backend,
            seed=self.seed,
        )
        err.print(
            f"model {self.model} is {ready.spec.name}, on {ready.cell.device}, {self.dtype}, "
            f"batch {self.batch}, {self.backend}; weights and images are random"
        )
        return ready


def profiles_of(
    sides: Sequence[Policy | Profile | str],
    *,
    names: Sequence[str],
    asked: Asked,
    seconds: float,
    folder: Path | None = None,
) -> tuple[Profile, ...]:
    """Return a profile for every side; those that are policies or presets are taken in turn."""
    fresh: dict[str, Policy | str] = {}
    keys = []
    for name, side in zip(names, sides, strict=True):
        keys.append(f"{name}{AGAIN}" if name in fresh else name)
        if not isinstance(side, Profile):
            fresh[keys[-1]] = side
    taken = _taken(fresh, asked, seconds, folder) if fresh else {}
    return tuple(
        side if isinstance(side, Profile) else taken[key]
        for key, side in zip(keys, sides, strict=True)
    )


def _taken(
    sides: Mapping[str, Policy | str], asked: Asked, seconds: float, folder: Path | None
) -> dict[str, Profile]:
    """Profile policies and presets in turn, with progress on stderr."""
    from tokensearch.cli.progress import listener
    from tokensearch.measure import Effort
    from tokensearch.profiling import Plan, profile

    ready = asked.timed()
    policies = {name: _policy(side, ready, asked) for name, side in sides.items()}
    traces = None if folder is None else _cleared(folder / TRACES, policies)
    effort = Effort(WARMUP_ROUNDS, LEAST_ROUNDS, MOST_ROUNDS, seconds)
    with listener(err) as watcher:
        watcher.stage(f"profiling {' and '.join(policies)}")

        def tell(rounds: int, spent: float) -> None:
            watcher.progress(
                done=min(round(spent), round(seconds)),
                total=round(seconds),
                seconds_left=max(0.0, seconds - spent),
                text=f"{rounds} rounds",
            )

        found = profile(
            ready.model,
            policies,
            images=ready.images,
            cell=ready.cell,
            plan=Plan(effort, seed=asked.seed),
            folder=traces,
            enough=_enough,
            tell=tell,
        )
    return {one.name: one for one in found}


def _cleared(traces: Path, names: Iterable[str]) -> Path:
    """Take the traces of earlier profiles of these names away: a viewer would show them as well."""
    from tokensearch.measure.tracer import worker

    for name in names:
        own = made(traces / worker(name))
        try:
            for stale in own.glob("*.pt.trace.json.gz"):
                stale.unlink()
        except OSError as error:
            raise RunError(f"{own} cannot be cleared: {error.strerror}") from error
    return traces


def _policy(side: Policy | str, ready: "Timed", asked: Asked) -> Policy:
    """Return the policy of a side for the model at hand, and say so where it was rescaled."""
    from tokensearch.report.presets import is_rescaled, rescaled_line

    if isinstance(side, Policy):
        return ready.fitting(side)
    chosen = preset(side, ready.spec, rescale=asked.rescale)
    if is_rescaled(chosen):
        caution(rescaled_line(chosen))
    return ready.fitting(chosen)


def _enough(profiles: tuple[Profile, ...]) -> bool:
    """Whether a pair is known well enough to end before the seconds."""
    from tokensearch.ledger import ledger

    if len(profiles) != 2:
        return False
    found = ledger(*profiles)
    residual = found.residual.ms
    closes = (residual.high - residual.low) / 2 <= CLOSING_REACH * abs(found.difference.value)
    return closes and (found.ratio.high - found.ratio.low) / 2 <= RATIO_REACH
