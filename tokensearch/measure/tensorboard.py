"""Traces that TensorBoard's plugin torch-tb-profiler opens, its diff view included.

The plugin reads what torch 2.0 wrote and is developed no further. Three things in a trace of today
are said again in its words; no time is changed.

* It drops ranges, and lines two runs up by `nn.Module` calls alone: without any, its diff view is
  one bar. So every range is also written as such a call. (Recording stacks would find module calls
  too, and name them by counting, so that one call less shifts all later names.)
* It knows launches as "runtime", not "cuda_runtime" or "cuda_driver", and finds kernels through
  them: without, every operator's device time is 0 (kineto issue 843, pull request 1166).
* It takes the shadow of a profiler step on the device for one more step.
"""

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from torch.profiler import profile, tensorboard_trace_handler

from tokensearch.errors import MeasurementError
from tokensearch.files import make_folder, write_whole, writing

Event = dict[str, Any]  # as the Chrome trace format has it

_LAUNCHES = ("cuda_runtime", "cuda_driver")
_STEP = "ProfilerStep#"


def write_trace(profiler: profile, folder: Path, worker: str) -> Path:
    """Write a finished trace as `<worker>.<ns since 1970>.pt.trace.json.gz`; return its path.

    Each folder is a run to the plugin. It compares runs, so every profile wants a folder of its
    own, beside the others in the folder that TensorBoard is started on. Once the trace is there,
    earlier ones of the same worker go: the plugin would show them as well.
    """
    name, trace = _taken(profiler, worker)
    trace["traceEvents"] = for_plugin(trace["traceEvents"])
    make_folder(folder)
    written = folder / name
    # The plugin reads a file once, as soon as it has its name: half a file would stay half.
    write_whole(written, gzip.compress(json.dumps(trace).encode()))
    with writing(folder):
        for stale in folder.glob(f"{worker}.*.pt.trace.json.gz"):
            if stale != written:
                stale.unlink()
    return written


def _taken(profiler: profile, worker: str) -> tuple[str, dict[str, Any]]:
    """Return a trace as torch has it, and the name that it gives it."""
    try:
        with TemporaryDirectory() as scratch:
            tensorboard_trace_handler(scratch, worker, use_gzip=True)(profiler)
            (written,) = Path(scratch).iterdir()
            trace = json.loads(gzip.decompress(written.read_bytes()), strict=False)
    except (OSError, ValueError, EOFError) as error:  # half a file is no JSON
        raise MeasurementError(
            f"the trace cannot be kept in {gettempdir()} for a moment: {error}; free some of its "
            f"disk, or set TMPDIR to another"
        ) from error
    return written.name, trace


def for_plugin(events: Iterable[Event]) -> list[Event]:
    """Return the events of a trace in the plugin's words."""
    said = [
        event | {"cat": "runtime"} if event.get("cat") in _LAUNCHES else event
        for event in events
        if not (event.get("cat") == "gpu_user_annotation" and event["name"].startswith(_STEP))
    ]
    return [*said, *_module_calls(said)]


def _module_calls(events: list[Event]) -> Iterator[Event]:
    """Every range once more, as the call of a module within the calls around it."""
    ranges = [event for event in events if _is_range(event)]
    ranges.sort(key=lambda event: (event["pid"], event["tid"], event["ts"], -event["dur"]))
    modules: dict[str, int] = {}
    around: list[Event] = []
    for number, event in enumerate(ranges, start=1):
        while around and not _holds(around[-1], event):
            around.pop()
        args = {
            "Python id": number,
            "Python module id": modules.setdefault(event["name"], len(modules)),
        }
        if around:
            args["Python parent id"] = around[-1]["args"]["Python id"]
        call = {"cat": "python_function", "name": f"nn.Module: {event['name']}", "args": args}
        around.append(event | call)
        yield around[-1]


def _is_range(event: Event) -> bool:
    return event.get("cat") == "user_annotation" and not event["name"].startswith(_STEP)


def _holds(outer: Event, inner: Event) -> bool:
    """Whether a range ran within another, on the same thread."""
    same_thread = (outer["pid"], outer["tid"]) == (inner["pid"], inner["tid"])
    return bool(same_thread and inner["ts"] < outer["ts"] + outer["dur"])
