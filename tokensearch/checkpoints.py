"""Weights from a file, as training code leaves them: under prefixes, beside others, of other sizes.

Files are read as data alone: tensors, numbers and settings. Which table of a file is the model's,
and what stands before its names, is found by comparing names; timm's own filters of its models
then convert what other code has written, and resample position embeddings.
"""

import argparse
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PosixPath
from pickle import UnpicklingError
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tokensearch.errors import ModelError, TokensearchWarning, first_line

# A ViT of ten thousand tensors has a header of 1 MB.
MAX_HEADER_BYTES = 16 * 2**20
# Where averaged weights stand, which are those that are published: timm, DINO, others.
_AVERAGES = ("ema", "teacher", "averag")
_DEPTH = 3  # of tables within tables
_HEADS = ("head.", "head_dist.", "classifier.", "fc.")

# By what names weights stored in parts are known, and what makes them whole.
_IN_PARTS = (
    (".lora_", "PEFT's merge_and_unload()"),
    ("weight_mask", "torch.nn.utils.prune.remove(module, name)"),
    ("parametrizations.", "torch.nn.utils.parametrize.remove_parametrizations(module, name)"),
)

# What training code stores beside weights, none of which runs code when it is read.
_SCALAR: Any = np.float64(0).__reduce__()[0]
SAFE: list[Any] = [
    argparse.Namespace,
    PosixPath,
    np.dtype,
    np.ndarray,
    *{type(np.dtype(code)) for code in "?bhilqBHILQefdgSU"},
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]

Table = Mapping[str, Tensor]


class FittedTable(NamedTuple):
    """The weights for a model, by the model's names, and what was done to get them."""

    state: dict[str, Tensor]
    notes: tuple[str, ...]


def read_tables(file: Path) -> dict[str, Table]:
    """Return every table of named tensors in a file, by where it stands ("" at the top).

    Raises:
        ModelError: No such file, no table in it, or code.
    """
    if file.is_dir():
        raise ModelError(f"checkpoint {file} is a folder; give the file of weights in it")
    if not file.is_file():
        raise ModelError(f"checkpoint {file} does not exist")
    _check_container(file)
    try:
        if file.suffix == ".safetensors":
            content: Any = load_file(file)
        else:
            with torch.serialization.safe_globals(SAFE):
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"checkpoint {file} cannot be read; it must be safetensors, "
            f"or a torch file that holds tensors and no code{_code_in(file)}"
        ) from error
    tables = dict(_tables(content))
    if not tables:
        raise ModelError(f"checkpoint {file} holds no table of named tensors")
    return tables


def fit_table(tables: Mapping[str, Table], model: nn.Module) -> FittedTable:
    """Return the table that is `model`'s, by its names; what does not fit is left as it is."""
    wanted = model.state_dict()
    path, prefix = max(
        ((path, prefix) for path, table in tables.items() for prefix in _prefixes(table, wanted)),
        key=lambda pair: (_matches(tables[pair[0]], pair[1], wanted), _is_average(*pair)),
    )
    table, notes = tables[path], []
    if prefix:
        state = {k.removeprefix(prefix): v for k, v in table.items() if k.startswith(prefix)}
        others = len(table) - len(state)
        notes.append(f"names are taken without {prefix!r}")
        if others:
            notes.append(f"{others} tensors that are not under it are left out")
    else:
        state = dict(table)
    if list(list_misfits(wanted, state)):
        state = _filtered(state, model, notes)
    if len(tables) > 1:
        notes.insert(0, f"of {len(tables)} tables of weights, {path or 'the outermost'!r} is taken")
    return FittedTable(state, tuple(notes))


def list_misfits(wanted: Table, given: Table) -> Iterator[str]:
    """Yield what stands between a table and a model's, in words."""
    for name, tensor in wanted.items():
        if name not in given:
            yield f"{name} is missing"
        elif given[name].shape != tensor.shape:
            yield f"{name} is {tuple(given[name].shape)}, not {tuple(tensor.shape)}"
    yield from (f"{name} is unknown" for name in given if name not in wanted)


def explain_misfit(given: Table) -> str:
    """Return what makes weights whole that were stored in parts, as the end of a sentence."""
    for sign, remedy in _IN_PARTS:
        if any(sign in name for name in given):
            return f"; its weights are stored in parts: save them after {remedy}"
    return ""


def other_pool(state: Table, wanted: Table) -> str | None:
    """What timm calls the pooling of a checkpoint, whose last norm has another name there."""
    if "fc_norm.weight" in state and "norm.weight" not in state and "norm.weight" in wanted:
        return "avg"
    if "norm.weight" in state and "fc_norm.weight" not in state and "fc_norm.weight" in wanted:
        return "token"
    return None


def without_head(state: Table) -> dict[str, Tensor]:
    """Return a table without the classifier."""
    return {name: value for name, value in state.items() if not name.startswith(_HEADS)}


def say(file: Path, notes: tuple[str, ...]) -> None:
    """Say in one line what was done to a checkpoint, if anything."""
    if notes:
        warnings.warn(f"checkpoint {file}: {'; '.join(notes)}", TokensearchWarning, stacklevel=4)


def _tables(content: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Table]]:
    if not isinstance(content, Mapping) or depth > _DEPTH:
        return
    named = {k: v for k, v in content.items() if isinstance(k, str)}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if tensors:
        yield path, tensors
    for name, value in named.items():
        yield from _tables(value, f"{path}.{name}" if path else name, depth + 1)


def _prefixes(table: Table, wanted: Table) -> set[str]:
    """What may stand before a model's names in a table."""
    first = [name for name in wanted if name.startswith(("cls_token", "pos_embed", "blocks.0."))]
    ends = tuple(first or wanted)
    prefixes = {key[: -len(end)] for key in table for end in ends if key.endswith(f".{end}")}
    return {"", *prefixes}


def _matches(table: Table, prefix: str, wanted: Table) -> int:
    return sum(key.startswith(prefix) and key[len(prefix) :] in wanted for key in table)


def _is_average(path: str, prefix: str) -> bool:
    return any(word in f"{path}.{prefix}".lower() for word in _AVERAGES)


def _filtered(state: dict[str, Tensor], model: nn.Module, notes: list[str]) -> dict[str, Tensor]:
    """Let timm convert what it knows how to convert, and note what was resampled."""
    module = sys.modules.get(type(model).__module__)
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        converted: dict[str, Tensor] = convert(dict(state), model)
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        # Written for other layouts: the misfits are told instead.
        return state
    for name, value in converted.items():
        before = state.get(name)
        if before is not None and before.shape != value.shape:
            notes.append(f"{name} is resampled from {tuple(before.shape)} to {tuple(value.shape)}")
    return converted


def _code_in(file: Path) -> str:
    """Name the classes for which a file was refused, where torch can tell."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except (EOFError, OSError, RuntimeError, ValueError, UnpicklingError):  # no file of torch's
        return ""
    known = {entry[1] for entry in SAFE if isinstance(entry, tuple)}
    unknown = [name for name in names if name not in known]
    return f" (it holds {', '.join(unknown[:3])}; save model.state_dict() alone)" if unknown else ""


def _check_container(file: Path) -> None:
    """Refuse a file that unpacks to more than it is, before anything is unpacked.

    torch.save stores its members as they are, and safetensors begins with the length of its header
    (8 bytes, little-endian).
    """
    try:
        if file.suffix == ".safetensors":
            with file.open("rb") as opened:
                header = int.from_bytes(opened.read(8), "little")
            if header > file.stat().st_size:
                raise ModelError(
                    f"checkpoint {file} is no safetensors file, or was cut short: its first 8 "
                    f"bytes name a header longer than all of it"
                )
            if header > MAX_HEADER_BYTES:
                raise ModelError(
                    f"checkpoint {file} has a header of {header:,} bytes; at most "
                    f"{MAX_HEADER_BYTES:,} are read"
                )
        elif zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
            packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
            if packed or sum(member.file_size for member in members) > file.stat().st_size:
                raise ModelError(
                    f"checkpoint {file} is compressed, which torch.save never does; save it again"
                )
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelError(f"checkpoint {file} cannot be read: {first_line(error)}") from error
