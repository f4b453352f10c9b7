"""The folder of a training: what was asked, a checkpoint, and a line for every few steps.

Nothing is pickled. A checkpoint is one safetensors file, whole or not at all, with the numbers that
go with its tensors in its metadata.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tokensearch.documents import read_object
from tokensearch.errors import RunError
from tokensearch.files import make_folder, refuse_link, write_whole, writing

_NUMBERS = "tokensearch"  # the entry of the metadata that holds them, as JSON

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a training goes on from."""

    step: int  # steps that are done
    tensors: Mapping[str, Tensor]
    numbers: Json


@dataclass(frozen=True)
class TrainingFolder:
    """Files of one training."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """The last good state."""
        return self.path / "checkpoint.safetensors"

    @property
    def steps(self) -> Path:
        """A line of JSON for every few steps."""
        return self.path / "steps.jsonl"

    @property
    def tensorboard(self) -> Path:
        """The same figures, for TensorBoard."""
        return self.path / "tensorboard"

    def begin(self, asked: Json) -> None:
        """Write down what is asked, or see that it is what was asked before.

        Raises:
            RunError: The folder cannot be written, or another training is in it.
        """
        refuse_link(self.path)
        make_folder(self.path)
        file = self.path / "run.json"
        asked = json.loads(json.dumps(asked))
        if not file.exists():
            write_whole(file, json.dumps(asked, indent=2) + "\n")
            return
        before = read_object(file, what="a training", error=RunError)
        other = next((key for key in asked if before.get(key) != asked[key]), None)
        if other is not None:
            raise RunError(
                f"folder {self.path} holds a training with {other} {before.get(other)!r:.60} and "
                f"not {asked[other]!r:.60}; name another with --out"
            )

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint."""
        numbers = json.dumps({"step": checkpoint.step, **checkpoint.numbers})
        tensors = {
            name: value.detach().cpu().contiguous().clone()
            for name, value in checkpoint.tensors.items()
        }
        write_whole(self.checkpoint, save(tensors, {_NUMBERS: numbers}))

    def load(self, device: torch.device) -> Checkpoint | None:
        """Return the checkpoint, if there is one; RunError where it cannot be read."""
        if not self.checkpoint.exists():
            return None
        try:
            with safe_open(self.checkpoint, "pt", device=str(device)) as file:
                numbers = json.loads(file.metadata()[_NUMBERS])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Checkpoint(numbers.pop("step"), tensors, numbers)
        except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(
                f"checkpoint {self.checkpoint} cannot be read; delete it to begin again"
            ) from error

    def take(self, checkpoint: Checkpoint, name: str) -> Tensor:
        """Return a tensor of the checkpoint; RunError where an older version left it out."""
        if name not in checkpoint.tensors:
            raise RunError(
                f"checkpoint {self.checkpoint} has no {name!r:.60}; delete it to begin again"
            )
        return checkpoint.tensors[name]

    def cut_lines(self, step: int) -> None:
        """Forget lines of steps that will be taken again."""
        if self.steps.exists():
            kept = [line for line in self._lines() if json.loads(line)["step"] <= step]
            write_whole(self.steps, "".join(f"{line}\n" for line in kept))

    def add_line(self, figures: Json) -> None:
        """Write one line."""
        with writing(self.steps), self.steps.open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")

    def _lines(self) -> Iterator[str]:
        """Whole lines: a kill may have cut the last."""
        for line in self.steps.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield line.rstrip("\n")


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what an optimizer remembers of each parameter, by number and name."""
    return {
        f"optimizer.{number}.{name}": value
        for number, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
        if isinstance(value, Tensor)
    }


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Have an optimizer remember what `pack_optimizer` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            number, _, name = rest.partition(".")
            state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
