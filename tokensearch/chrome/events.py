"""The file: bytes in, events out. Bounded, and strict about what is used of it.

`export_chrome_trace` and `tensorboard_trace_handler` write JSON, gzipped or not: one object whose
`traceEvents` have times in microseconds (kineto, `libkineto/src/output_json.cpp`). Read are

* `cpu_op`                       operators;
* `cuda_runtime`, `cuda_driver`  calls of the device's library;
* `kernel`, `gpu_memcpy`, `gpu_memset`  what ran on the device;
* `user_annotation`              ranges: the steps, and the phases that our own runtime marks.

Older releases write `Operator`, `Runtime`, `Kernel`, which are read too. Shapes, stacks, memory,
and the arrows between events are not.
"""

import gzip
import itertools
import json
import os
import re
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tokensearch.documents import opened
from tokensearch.errors import MeasurementError, TokensearchWarning
from tokensearch.records.profile import RANGE

# Reading and summing up an event takes 20 us, so that a trace takes 3 s at most. Ours have 10,000.
MAX_EVENTS = 150_000
MAX_BYTES = 64 * 10**6  # of the file, and of its text: an event with its shapes has 600 bytes
# Objects and lists, and values in them: an event with its shapes has ten and 25, so that a file
# has up to 1.1 and 2.7 million.
MAX_PARTS, MAX_VALUES = 1_600_000, 4 * 10**6
MOST_UNFIT = 0.01  # of the events: what a tracer may have got wrong in a trace that is right
_FEWER = "record fewer steps, by a smaller `active` in the profiler's schedule, and no stacks"

STEP = re.compile(r"ProfilerStep#\d+")

_GZIP_MAGIC = b"\x1f\x8b"
_LATEST_US = 1e17  # counted from 1970, the year 5138

Role = Literal["operator", "call", "range", "kernel"]
_ROLES: dict[str, Role] = {
    **dict.fromkeys(("cpu_op", "Operator"), "operator"),
    **dict.fromkeys(("cuda_runtime", "cuda_driver", "xpu_runtime", "Runtime"), "call"),
    **dict.fromkeys(("kernel", "gpu_memcpy", "gpu_memset", "Kernel", "Memcpy", "Memset"), "kernel"),
    "user_annotation": "range",
}
_OTHER = object()  # an event of no interest


class Event(NamedTuple):
    """Something with a beginning and a length, as the file has it."""

    role: Role
    name: str
    track: tuple[str | int, str | int]  # process and thread, or device and stream
    start_us: float
    us: float
    correlation: int | None  # the same for a kernel and the call that launched it
    external: int | None  # the same for an operator and the calls made from it

    @property
    def end_us(self) -> float:
        """When it ended."""
        return self.start_us + self.us


def read_events(path: Path) -> tuple[list[Event], dict[str, Any]]:
    """Return the events of a trace, and what else the file holds; MeasurementError if it is none.

    The first two bytes tell whether it is gzipped, not the name.
    """
    return parse_events(_bytes(path))


def parse_events(data: bytes) -> tuple[list[Event], dict[str, Any]]:
    """Return the events in a trace's JSON, and what else it holds; MeasurementError if it is none.

    What is counted bounds the memory before anything is parsed: an empty list takes 30 times its
    text. Counted are bytes, those within names too, and in real traces there are few.
    """
    parts, values = data.count(b"[") + data.count(b"{"), data.count(b",")
    if parts > MAX_PARTS or values > MAX_VALUES:
        raise MeasurementError(
            f"the trace has {parts} objects and lists of {values} values, which takes more memory "
            f"than a trace may; {_FEWER}"
        )
    document = _document(data)
    return _kept(document.pop("traceEvents")), document


def _bytes(path: Path) -> bytes:
    """Read and unzip, never more than the limit."""
    try:
        with opened(path, what="a trace", error=MeasurementError) as file:
            size = os.fstat(file.fileno()).st_size
            zipped = file.peek(2)[:2] == _GZIP_MAGIC  # type: ignore[attr-defined]  # buffered
            source: Any = gzip.GzipFile(fileobj=file) if zipped else file
            data: bytes = source.read(MAX_BYTES + 1) if size <= MAX_BYTES else b""
    except (OSError, EOFError, zlib.error) as error:  # a broken gzip raises any of the three
        reason = getattr(error, "strerror", None) or error
        raise MeasurementError(f"the file cannot be read: {reason}") from error
    if max(size, len(data)) > MAX_BYTES:
        raise MeasurementError(f"the trace is larger than {MAX_BYTES / 10**6:.0f} MB; {_FEWER}")
    return data


def _document(data: bytes) -> dict[str, Any]:
    try:
        document = _parsed(data)
    except MeasurementError:
        raise
    except (ValueError, RecursionError) as error:
        raise MeasurementError(f"the file is no JSON, or not all of it: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("traceEvents"), list):
        raise MeasurementError("the file has no traceEvents, which every torch.profiler trace has")
    return document


def _parsed(data: bytes) -> Any:
    """Parse a trace; one that is no JSON as it is, mended."""
    try:
        return json.loads(data, object_hook=_counted(_event_or_fields), strict=False)
    except MeasurementError:
        raise
    except ValueError:
        text = _mended(data)
        return json.loads(text, object_hook=_counted(_event_or_fields), strict=False)


def _kept(entries: list[Any]) -> list[Event]:
    """Return the events; a few that cannot be used are left out and counted.

    Raises:
        MeasurementError: They are more than a few.
    """
    events = [entry for entry in entries if isinstance(entry, Event)]
    unfit = [entry for entry in entries if entry is not _OTHER and not isinstance(entry, Event)]
    if unfit:
        no_event = MeasurementError("traceEvents holds something that is no event")
        first = next((entry for entry in unfit if isinstance(entry, MeasurementError)), no_event)
        if len(unfit) > MOST_UNFIT * len(events):
            raise first
        warnings.warn(
            f"{len(unfit)} of {len(unfit) + len(events)} events are left out; the first: {first}",
            TokensearchWarning,
            stacklevel=5,
        )
    return events


def _mended(data: bytes) -> str:
    r"""Return the text of a trace as torch's own plugin for TensorBoard mends it, and more.

    Some releases wrote names in the system's encoding, backslashes of Windows as they are, and N/A
    without quotes (`torch_tb_profiler/profiler/data.py`).
    """
    text = data.decode("utf-8", errors="replace")
    # Pairs are taken together, so that the second of two begins nothing.
    text = re.sub(r'\\(?:(["\\/bfnrt]|u[0-9a-fA-F]{4})|(.)|$)', _escaped, text, flags=re.DOTALL)
    return re.sub(r'(?<!")\bN/A\b(?!")', '"N/A"', text)


def _escaped(match: re.Match[str]) -> str:
    return match[0] if match[1] else "\\\\" + (match[2] or "")


def _counted(hook: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    """Have a hook end the parsing at more events than are read."""
    numbers = itertools.count(1)

    def counting(fields: dict[str, Any]) -> object:
        entry = hook(fields)
        if isinstance(entry, Event) and next(numbers) > MAX_EVENTS:
            raise MeasurementError(f"the trace has more than {MAX_EVENTS:,} events; {_FEWER}")
        return entry

    return counting


def _event_or_fields(fields: dict[str, Any]) -> object:
    """Return an event, or the error that says why it is none."""
    try:
        return _event(fields)
    except MeasurementError as error:
        return error


def _event(fields: dict[str, Any]) -> object:
    """Cut an event down as soon as it is parsed: shapes and stacks would fill the memory."""
    if "ph" not in fields:
        return fields
    kind = fields.get("cat")
    if fields["ph"] != "X" or not isinstance(kind, str) or kind not in _ROLES:
        return _OTHER
    name, arguments = fields.get("name"), fields.get("args", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise MeasurementError(f"an event has name {name!r:.60} and args {arguments!r:.60}")
    return Event(
        _role(kind, name),
        name,
        (_track(fields, "pid"), _track(fields, "tid")),
        _microseconds(fields, "ts"),
        _microseconds(fields, "dur"),
        _identity(arguments, "correlation"),
        _identity(arguments, "External id") or _identity(arguments, "external id"),
    )


def _role(kind: str, name: str) -> Role:
    """Older releases write ranges as operators."""
    marked = STEP.fullmatch(name) or name.startswith(f"{RANGE}.")
    return "range" if marked and _ROLES[kind] == "operator" else _ROLES[kind]


def _microseconds(fields: Mapping[str, Any], name: str) -> float:
    value: Any = fields.get(name)
    # NaN is in no interval.
    if type(value) not in {int, float} or not 0 <= value < _LATEST_US:
        raise MeasurementError(
            f"event {fields['name']!r:.60} has {name} {value!r:.60}; it must be microseconds, 0 up"
        )
    return float(value)


def _track(fields: Mapping[str, Any], name: str) -> str | int:
    value = fields.get(name)
    if not isinstance(value, str | int):
        raise MeasurementError(f"event {fields['name']!r:.60} has {name} {value!r:.60}")
    return value


def _identity(arguments: Mapping[str, Any], name: str) -> int | None:
    value = arguments.get(name, 0)
    if not isinstance(value, int):
        raise MeasurementError(f"an event has {name} {value!r:.60}; it must be an integer")
    return value or None
