"""What lies in what: events of the host within each other, in phases, and in steps."""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from tokensearch.chrome.events import STEP, Event
from tokensearch.errors import MeasurementError
from tokensearch.records.profile import OUTSIDE, PASS_RANGE, Scope, scope_of


@dataclass(slots=True)
class HostTimeline:
    """An event on the host, and where it lies."""

    event: Event
    scope: Scope  # of the innermost of our own ranges that holds it
    own_us: float  # without what is nested in it
    parent: "HostTimeline | None"  # the innermost operator, call or range that holds it
    children: int = 0

    @property
    def repeats(self) -> bool:
        """Whether it is its parent over again: an overload calls another, which is one call."""
        parent = self.parent
        return parent is not None and parent.children == 1 and parent.event.name == self.event.name


def nested(events: Iterable[Event]) -> list[HostTimeline]:
    """Return events with their own time, thread by thread, in the order of their start."""
    tracks: dict[tuple[str | int, str | int], list[Event]] = defaultdict(list)
    for event in events:
        tracks[event.track].append(event)
    return [host for track in tracks.values() for host in _within_each_other(track)]


def _within_each_other(track: list[Event]) -> list[HostTimeline]:
    """Put each event of a thread in the innermost one that holds all of it.

    One that outlasts what it began in stands beside it, as in the profiler's own tables. Of two
    with the same times, the outer one has the lower id.
    """
    hosts: list[HostTimeline] = []
    around: list[HostTimeline] = []
    for event in sorted(track, key=lambda one: (one.start_us, -one.us, one.external or 0)):
        while around and not _holds(around[-1].event, event):
            around.pop()
        parent = around[-1] if around else None
        if parent is not None:
            parent.own_us -= event.us
            parent.children += 1
        outer = OUTSIDE if parent is None else parent.scope
        own = scope_of(event.name) if event.role == "range" else None
        around.append(HostTimeline(event, own or outer, event.us, parent))
        hosts.append(around[-1])
    return hosts


def _holds(outer: Event, inner: Event) -> bool:
    return inner.start_us < outer.end_us and inner.end_us <= outer.end_us + _slack_us(inner)


def _slack_us(event: Event) -> float:
    """How far off an end may be: old files count from 1970, too long for a float to hold ns."""
    return 4 * math.ulp(event.start_us)


class StepMarks:
    """The steps of a trace: our own passes, else the profiler's steps, else one of everything."""

    def __init__(self, hosts: list[HostTimeline], kernels: list[Event]) -> None:
        marks = _marks(hosts)
        self.marked = bool(marks)
        self.windows = [(mark.start_us, mark.end_us) for mark in marks] or [
            _span([host.event for host in hosts] + kernels)
        ]
        self._starts = [start for start, _ in self.windows]

    def of(self, time_us: float) -> int | None:
        """Return the number of the step that holds a moment on the host."""
        number = self.begun(time_us)
        return None if number is None or time_us > self.windows[number][1] else number

    def begun(self, time_us: float) -> int | None:
        """Return the number of the last step begun: devices lag behind the host."""
        number = bisect_right(self._starts, time_us) - 1
        return number if number >= 0 else None


def _span(events: list[Event]) -> tuple[float, float]:
    if not events:
        raise MeasurementError(
            "the trace holds no operators, which torch.profiler writes as cpu_op"
        )
    return min(one.start_us for one in events), max(one.end_us for one in events)


def _marks(hosts: list[HostTimeline]) -> list[Event]:
    """Ranges around steps. What the profiler opens after the last, and stays empty, is left out."""
    ranges = [host.event for host in hosts if host.event.role == "range"]
    passes = [event for event in ranges if event.name == PASS_RANGE]
    borders = passes or [event for event in ranges if STEP.fullmatch(event.name)]
    starts = [host.event.start_us for host in hosts if host.event.role == "operator"]
    last = max(starts, default=math.inf)
    marks = sorted((one for one in borders if one.start_us <= last), key=lambda one: one.start_us)
    for before, after in pairwise(marks):
        if before.end_us > after.start_us + _slack_us(after):
            raise MeasurementError("steps overlap, as of several processes in one trace")
    return marks
