"""The options of `profile` and `diff` that say what is profiled on the spot, and in which cell."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

from typer import Option

from tokensearch.cli.console import err
from tokensearch.cli.options import (
    DEMO,
    BackendOption,
    BatchOption,
    DeviceOption,
    DtypeOption,
    RescaleOption,
    SeedOption,
)
from tokensearch.errors import MeasurementError

if TYPE_CHECKING:
    from tokensearch.cli.auto import DTypeName
    from tokensearch.cli.timed import Timed
    from tokensearch.policy import Policy
    from tokensearch.profiles import Profile


@dataclass(frozen=True, slots=True)
class Asked:
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

    def beside(self, sides: "Sequence[Policy | Profile | str]") -> "Asked":
        """The same for the model of the sides, in the cell of a stored profile if there is one.

        Raises:
            ModelError: The user typed no model, and that of the sides must be typed.
        """
        from tokensearch.cli.sides import model_of
        from tokensearch.profiles import Profile

        stored = next((side for side in sides if isinstance(side, Profile)), None)
        asked = self if stored is None else self._in_cell_of(stored)
        return replace(asked, model=self.model or model_of(sides))

    def _in_cell_of(self, stored: "Profile") -> "Asked":
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

    def timed(self) -> "Timed":
        """Prepare the model, and say which it is."""
        from tokensearch.cli.auto import where
        from tokensearch.cli.timed import timed
        from tokensearch.models import resolve

        ready = timed(
            resolve(self.name),
            device=self.device,
            dtype=self.dtype,
            batch=self.batch_size,
            backend=self.backend,
            seed=self.seed,
        )
        err.print(
            f"model {self.name} is {ready.spec.name}, on {where(ready.cell)}; weights and images "
            "are random"
        )
        if ready.why:
            err.print(ready.why, soft_wrap=True)
        return ready

    def refuse_beside(self, stored: Sequence[str]) -> None:
        """Refuse what would be ignored, since all sides are stored and nothing is profiled."""
        from tokensearch.report.text import listed

        if self.given:
            verb, one = ("are", "them") if len(self.given) > 1 else ("is", "it")
            raise MeasurementError(
                f"{listed(self.given)} {verb} for what is profiled on the spot, but "
                f"{listed(stored)} are stored; leave {one} out"
            )
