"""Options of verbs that time again what was timed, in the same cell if not told otherwise."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

if TYPE_CHECKING:
    from tokensearch.cli.timed import Timed
    from tokensearch.models import ModelName
    from tokensearch.records import Backend


@dataclass(frozen=True, slots=True)
class Again:
    """The model and the cell in which something is timed again; what is None stays as it was."""

    model: Annotated[
        str | None,
        Option(
            "--model",
            metavar="NAME",
            help="as in `run`; needed where the file names one of your own, which is loaded only "
            "if you name it",
        ),
    ] = None

    device: Annotated[
        str | None,
        Option("--device", metavar="NAME", help="default: the one that it was timed on before"),
    ] = None
    batch_size: Annotated[
        int | None,
        Option("--batch-size", min=1, metavar="N", help="default: as it was timed before"),
    ] = None
    backend: Annotated[
        Literal["auto", "eager", "compile", "cudagraph", "compile-cudagraph"] | None,
        Option("--backend", help="default: as it was timed before; on a CPU, eager for graphs"),
    ] = None

    def named(self, stored: str, *, what: str) -> "ModelName":
        """Return what the user typed, or else the model that a file names.

        Raises:
            ModelError: The user typed none, and that of the file must be typed.
        """
        from tokensearch.models import resolve, resolve_stored

        return resolve_stored(stored, what=what) if self.model is None else resolve(self.model)

    def timed(
        self,
        name: "ModelName",
        *,
        device: str,
        dtype: str,
        batch: int,
        backend: "Backend",
        seed: int,
    ) -> "Timed":
        """Prepare a model as `timed` does, given how it was timed before.

        What was replayed on a GPU runs eagerly elsewhere, where there are no graphs.
        """
        from tokensearch.cli.auto import resolve_device
        from tokensearch.cli.timed import timed
        from tokensearch.records import REPLAYED

        on_gpu = resolve_device(self.device or device).type == "cuda"
        before = "eager" if backend in REPLAYED and not on_gpu else backend
        return timed(
            name,
            device=self.device or device,
            dtype=dtype,
            batch=self.batch_size or batch,
            backend=self.backend or before,
            seed=seed,
        )
