"""The operands of `profile` and `diff`: options, and profiles read or taken."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

from typer import Option

from tokensearch.cli.console import caution, err
from tokensearch.cli.options import (
    DEMO,
    BackendOption,
    BatchOption,
    DeviceOption,
    DtypeOption,
    ImgSizeOption,
    ModelKwargsOption,
    RescaleOption,
    SeedOption,
    read_options,
)
from tokensearch.errors import MeasurementError
from tokensearch.files import make_folder, refuse_link
from tokensearch.policy import Policy, preset
from tokensearch.records.profile import Profile

if TYPE_CHECKING:
    from tokensearch.cli.timing_subject import TimingSubject
    from tokensearch.measure.resolve_cell import DTypeName


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """The model and the cell in which something is profiled on the spot: an option per field."""

    # A verb's own seconds are of what is profiled on the spot as well.
    heard: ClassVar[tuple[str, ...]] = ("seconds",)

    model: Annotated[
        str | None,
        Option(
            "--model",
            metavar="NAME",
            help="as in `run`; default: the one a policy or profile was made for, else demo",
        ),
    ] = None
    img_size: ImgSizeOption = None
    model_kwargs: ModelKwargsOption = None
    rescale: RescaleOption = False
    device: DeviceOption = "auto"
    dtype: DtypeOption = "auto"
    batch_size: BatchOption = 8
    backend: BackendOption = "auto"
    seed: SeedOption = 0
    given: tuple[str, ...] = ()  # those that the user gave, as spelt on the command line

    @property
    def name(self) -> str:
        """What the user calls the model."""
        return self.model or DEMO

    def beside(self, sides: "Sequence[Policy | Profile | str]") -> "ProfileOptions":
        """The same for the model of the sides, in the cell of a stored profile if there is one.

        Raises:
            ModelError: The user typed no model, and that of the sides must be typed.
        """
        from tokensearch.cli.operands import model_of_operands
        from tokensearch.records.profile import Profile

        stored = next((side for side in sides if isinstance(side, Profile)), None)
        asked = self if stored is None else self._in_cell_of(stored)
        return replace(asked, model=self.model or model_of_operands(sides))

    def _in_cell_of(self, stored: "Profile") -> "ProfileOptions":
        cell = stored.cell
        wanted = {"dtype": cell.dtype, "batch_size": cell.batch, "backend": cell.backend}
        for name, there in wanted.items():
            option, here = f"--{name.replace('_', '-')}", getattr(self, name)
            if option in self.given and here not in {there, "auto"}:
                raise MeasurementError(
                    f"{option} is {here}, but the stored profile {stored.name} was taken with "
                    f"{there}, in which the other side is profiled too; leave it out"
                )
        kind = cast("DTypeName", cell.dtype)
        return replace(self, dtype=kind, batch_size=cell.batch, backend=cell.backend)

    def timed(self) -> "TimingSubject":
        """Prepare the model, and say which it is."""
        from tokensearch.cli.timing_subject import make_timing_subject
        from tokensearch.measure.resolve_cell import name_cell
        from tokensearch.models import resolve_model

        ready = make_timing_subject(
            resolve_model(self.name),
            options=read_options(self.img_size, self.model_kwargs),
            device=self.device,
            dtype=self.dtype,
            batch=self.batch_size,
            backend=self.backend,
            seed=self.seed,
        )
        full = "" if self.name == ready.spec.name else f" is {ready.spec.name},"
        err.print(
            f"model {self.name}{full} on {name_cell(ready.cell)}; weights and images are random"
        )
        if ready.why:
            err.print(ready.why, soft_wrap=True)
        return ready

    def refuse_beside(self, stored: Sequence[str]) -> None:
        """Refuse what would be ignored, since all sides are stored and nothing is profiled."""
        from tokensearch.report.text import listed

        if self.given:
            verb, pronoun = ("are", "them") if len(self.given) > 1 else ("is", "it")
            raise MeasurementError(
                f"{listed(self.given)} {verb} for what is profiled on the spot, but "
                f"{listed(stored)} are stored; leave {pronoun} out"
            )


if TYPE_CHECKING:
    from tokensearch.cli.progress import Lines, Live
    from tokensearch.cli.timing_subject import TimingSubject

# Rounds: below the least an interval says little; the most is never reached before the seconds.
WARMUP_ROUNDS, LEAST_ROUNDS, MOST_ROUNDS = 3, 12, 5000  # the help of --seconds names the least
# A diff is done early when its ratio is known so well, and the ledger closes so surely.
RATIO_REACH, CLOSING_REACH = 0.005, 0.02
TRACES = "tensorboard"  # the folder, within that of the profiles
AGAIN = " again"  # what a side is called that is compared with itself


def profile_operands(
    sides: Sequence[Policy | Profile | str],
    *,
    names: Sequence[str],
    asked: "ProfileOptions",
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
    sides: Mapping[str, Policy | str], asked: "ProfileOptions", seconds: float, folder: Path | None
) -> dict[str, Profile]:
    """Profile policies and presets in turn, with progress on stderr."""
    from tokensearch.cli.progress import progress_listener
    from tokensearch.measure import TimingBudget
    from tokensearch.profiling import ProfilePlan, profile

    ready = asked.timed()
    say_launches(ready)
    policies = {name: _policy(side, ready, asked) for name, side in sides.items()}
    traces = None if folder is None else _unlinked(folder / TRACES, policies)
    budget = TimingBudget(
        warmup=WARMUP_ROUNDS, min_rounds=LEAST_ROUNDS, max_rounds=MOST_ROUNDS, seconds=seconds
    )
    with progress_listener(err) as watcher:
        watcher.stage(f"profiling {' and '.join(policies)}", unit="s")
        profiles = profile(
            ready.model,
            policies,
            images=ready.images,
            cell=ready.cell,
            plan=ProfilePlan(budget, seed=asked.seed),
            folder=traces,
            enough=_enough,
            tell=_Telling(watcher, seconds),
            stage=watcher.stage,
        )
    return {one.name: one for one in profiles}


def say_launches(ready: "TimingSubject") -> None:
    """Say so if a pass of the baseline waits for its launches."""
    from tokensearch.evaluation.latency import PolicyTimer

    launching = PolicyTimer(ready.model, ready.images, ready.cell, 0).launching
    if launching is not None and launching.bound:
        caution(launching.sentence)


class _Telling:
    """Says how far the timing is: in seconds, and then in rounds where those were too few."""

    def __init__(self, watcher: "Live | Lines", seconds: float) -> None:
        self._watcher, self._seconds = watcher, seconds
        self._going_on = False

    def __call__(self, rounds: int, spent: float) -> None:
        """Hear the rounds that were counted, and the seconds that all took."""
        over = spent >= self._seconds
        if over and not self._going_on and rounds < LEAST_ROUNDS:
            self._going_on = True
            self._watcher.stage("going on to the fewest that an interval takes", unit="rounds")
        if self._going_on:
            left_s = spent / (WARMUP_ROUNDS + rounds) * (LEAST_ROUNDS - rounds)
            done, total, text = rounds, LEAST_ROUNDS, ""
        else:
            left_s, total = max(0.0, self._seconds - spent), ceil(self._seconds)
            done, text = total if over else int(spent), f"{rounds} rounds"
        self._watcher.progress(done=done, total=total, seconds_left=left_s, text=text)


def _unlinked(traces: Path, names: Iterable[str]) -> Path:
    """Refuse, before anything is timed, a folder of traces that leads elsewhere."""
    from tokensearch.measure.tracer import to_file_name

    for folder in (traces, *(traces / to_file_name(name) for name in names)):
        refuse_link(folder)
        make_folder(folder)
    return traces


def _policy(side: Policy | str, ready: "TimingSubject", asked: "ProfileOptions") -> Policy:
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
    from tokensearch.diff.ledger import make_ledger

    if len(profiles) != 2:
        return False
    ledger = make_ledger(*profiles)
    residual = ledger.residual.ms
    closes = (residual.high - residual.low) / 2 <= CLOSING_REACH * abs(ledger.difference.value)
    return closes and (ledger.ratio.high - ledger.ratio.low) / 2 <= RATIO_REACH
