"""The tensors file beside a policy: what learned steps have learned, in the safetensors format.

It is read by the standard library, since this package needs no torch, and holds no code. Eight
bytes with the length of a header, the header as JSON, then the numbers one tensor after the other:
https://github.com/huggingface/safetensors#format
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

from tokensearch.documents import (
    Check,
    choice,
    fields,
    integer,
    items,
    leaf,
    mapping,
    parse_object,
    text,
    validate,
)
from tokensearch.documents.checks import MAX_NAME
from tokensearch.errors import PolicyError

# 64 queries or a metric of 64 features in each of 24 blocks of width 1,024 take 6 MiB in float32.
MAX_TENSORS_BYTES = 64 * 2**20
MAX_HEADER_BYTES = 2**20
MAX_TENSORS = 4096
MAX_DIMENSIONS = 4
DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
PREFIX_BYTES = 8  # the length of the header: an unsigned integer, little-endian

_METADATA = "__metadata__"
_OFFSET = integer(0, MAX_TENSORS_BYTES)
_TENSOR: Check = fields(
    {
        "dtype": choice(*DTYPE_BYTES),
        "shape": items(integer(1, MAX_TENSORS_BYTES), least=1, most=MAX_DIMENSIONS),
        "data_offsets": items(_OFFSET, least=2, most=2),
    },
    closed=True,
)
_NOTES: Check = mapping(text())
_NAME = leaf(
    f"printable text of 1 to {MAX_NAME} characters",
    lambda value: type(value) is str and 0 < len(value) <= MAX_NAME and value.isprintable(),
)


@dataclass(frozen=True, slots=True)
class RawTensor:
    """One tensor as its file holds it: row by row, little-endian."""

    dtype: str  # of DTYPE_BYTES
    shape: tuple[int, ...]
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Tensors:
    """The tensors that the learned steps of a policy name, known by the hash of their file.

    `data` is the whole file. It is None for a policy that was read without it, out of a record:
    such a policy can be shown and compared, but not applied.
    """

    sha256: str  # 64 hexadecimal digits
    size: int  # bytes of the file
    data: bytes | None = field(default=None, compare=False, repr=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tensors":
        """Return the tensors of a file's bytes; PolicyError where they are no safetensors."""
        tensors = cls(hashlib.sha256(data).hexdigest(), len(data), data)
        _ = tensors.by_name
        return tensors

    @classmethod
    def pack(cls, tensors: Mapping[str, RawTensor]) -> "Tensors":
        """Return `tensors` as a file holds them, in order of name."""
        header: dict[str, Any] = {}
        start = 0
        for name, tensor in sorted(tensors.items()):
            end = start + len(tensor.data)
            shape = list(tensor.shape)
            header[name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": [start, end]}
            start = end
        written = json.dumps(header, separators=(",", ":")).encode()
        written += b" " * (-len(written) % PREFIX_BYTES)  # numbers are aligned in the file
        numbers = b"".join(tensor.data for _, tensor in sorted(tensors.items()))
        return cls.from_bytes(len(written).to_bytes(PREFIX_BYTES, "little") + written + numbers)

    @cached_property
    def by_name(self) -> Mapping[str, RawTensor]:
        """Every tensor; PolicyError where the policy was read without its file."""
        if self.data is None:
            raise PolicyError(
                "the policy was read without its tensors file; read it with tokensearch.load, and "
                "keep both files in one folder"
            )
        return _unpack(self.data)


def _unpack(data: bytes) -> dict[str, RawTensor]:
    """Return the tensors of a file; every byte of it belongs to exactly one of them."""
    if len(data) > MAX_TENSORS_BYTES:
        raise PolicyError(
            f"the tensors file has {len(data)} bytes; it may have {MAX_TENSORS_BYTES}"
        )
    length = int.from_bytes(data[:PREFIX_BYTES], "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, len(data) - PREFIX_BYTES):
        raise PolicyError(
            f"the tensors file of {len(data)} bytes says that its header has {length}; it may have "
            f"{MAX_HEADER_BYTES}, and no more than the file"
        )
    header = parse_object(data[PREFIX_BYTES : PREFIX_BYTES + length], error=PolicyError)
    notes = header.pop(_METADATA, {})
    validate(notes, _NOTES, "the tensors' metadata", PolicyError)
    numbers = memoryview(data)[PREFIX_BYTES + length :]
    return _cut(header, numbers)


def _cut(header: Mapping[str, Any], numbers: memoryview) -> dict[str, RawTensor]:
    if len(header) > MAX_TENSORS:
        raise PolicyError(
            f"the tensors file holds {len(header)} tensors; it may hold {MAX_TENSORS}"
        )
    for name, entry in header.items():
        validate(name, _NAME, "the name of a tensor", PolicyError)
        validate(entry, _TENSOR, f"tensor {name!r:.60}", PolicyError)
    tensors: dict[str, RawTensor] = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda pair: pair[1]["data_offsets"]):
        first, last = entry["data_offsets"]
        size = prod(entry["shape"]) * DTYPE_BYTES[entry["dtype"]]
        if first != end or last - first != size or last > len(numbers):
            raise PolicyError(
                f"tensor {name!r:.60} lies at bytes {first} to {last} and takes {size}; tensors "
                f"must follow one another from byte {end} on, within {len(numbers)} bytes"
            )
        tensors[name] = RawTensor(entry["dtype"], tuple(entry["shape"]), bytes(numbers[first:last]))
        end = last
    if end != len(numbers):
        raise PolicyError(f"the last {len(numbers) - end} bytes of the tensors file are no tensor")
    return tensors
