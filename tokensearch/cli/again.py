"""Options of verbs that time again what was timed, in the same cell if not told otherwise."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

if TYPE_CHECKING:
    from tokensearch.cli.timed import Timed
    from tokensearch.records import Backend


@dataclass(frozen=True, slots=True)
class Again:
    """The cell in which something is timed again; what is None stays as it was."""

    device: Annotated[
        str | None,
        Option("--device", metavar="NAME", help="default: the one that it was timed on before"),
    ] = None
    batch_size: Annotated[
        int | None,
        Option("--batch-size", min=1, metavar="N", help="default: as it was timed before"),
    ] = None
    backend: Annotated[
        Literal["eager", "compile", "cudagraph"] | None,
        Option("--backend", help="default: as it was timed before"),
    ] = None

    def timed(
        self, name: str, *, device: str, dtype: str, batch: int, backend: "Backend", seed: int
    ) -> "Timed":
        """Prepare a model as `timed` does, given how it was timed before."""
        from tokensearch.cli.timed import timed

        return timed(
            name,
            device=self.device or device,
            dtype=dtype,
            batch=self.batch_size or batch,
            backend=self.backend or backend,
            seed=seed,
        )
