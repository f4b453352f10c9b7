"""A chart before it is drawn: marks in pixels on two axes, from which a template makes SVG."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import NamedTuple

WIDTH, HEIGHT = 760, 400  # of the drawing, in its own pixels
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 48  # margins, for the numbers and titles of axes
TICKS = 8  # at most so many steps on an axis


# Of names from their marks, the likeliest to be free first: at the right and the left, above and
# below. Phones show names at the larger size (report.css).
NEAR = ((10.0, -10.0), (10.0, 22.0), (-10.0, -10.0), (-10.0, 22.0))
NAME_PX, LONGEST_NAME = 19, 34
LETTER = 0.6  # width of a letter, as a share of its height


class Tick(NamedTuple):
    """A number on an axis."""

    px: float
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """From figures to pixels; what lies outside is drawn at the edge."""

    title: str
    low: float
    high: float
    start: float  # pixels
    end: float

    def at(self, value: float) -> float:
        """Return the pixel of a figure.

        >>> Axis("ms", 0, 10, start=100, end=300).at(5)
        200.0
        """
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    @property
    def ticks(self) -> tuple[Tick, ...]:
        """Round numbers along the axis.

        >>> [tick.label for tick in Axis("ms", 0, 42, start=0, end=100).ticks]
        ['0', '10', '20', '30', '40']
        """
        step = round_step((self.high - self.low) / TICKS)
        decimals = max(0, -floor(log10(step)))
        numbers = (step * i for i in range(ceil(self.low / step), floor(self.high / step) + 1))
        return tuple(Tick(self.at(number), f"{number:.{decimals}f}") for number in numbers)


def round_step(least: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20, ... that is at least so large.

    >>> [round_step(least) for least in (0.3, 7, 20, 21)]
    [0.5, 10.0, 20.0, 50.0]
    """
    power = 10.0 ** floor(log10(least))
    return min(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))


def horizontal(title: str, low: float, high: float) -> Axis:
    """An axis at the bottom; an empty range is widened."""
    return Axis(title, *_widened(low, high), LEFT, WIDTH - RIGHT)


def vertical(title: str, low: float, high: float) -> Axis:
    """An axis at the left; an empty range is widened."""
    return Axis(title, *_widened(low, high), HEIGHT - BOTTOM, TOP)


def _widened(low: float, high: float) -> tuple[float, float]:
    """Return the range, or one around its only figure.

    >>> _widened(0.5, 0.5)
    (0.25, 0.75)
    """
    room = 0.0 if high > low else abs(low) / 2 or 1.0
    return low - room, high + room


class Mark(NamedTuple):
    """A point of a chart."""

    kind: str  # "front", "preset", "control", "trial", ...: its looks, and what switches it
    x: float
    y: float
    tip: str  # what is said of it
    name: str = ""  # written beside it
    policy: int | None = None  # index of its schedule
    across: tuple[float, float] | None = None  # ends of its interval along the x axis
    along: tuple[float, float] | None = None  # ... and along the y axis
    star: bool = False  # the answer
    sunk: bool = False  # it lies below what is shown
    offset: tuple[float, float] = NEAR[0]  # of its name; left of the mark where dx is below 0


class Box(NamedTuple):
    """What a mark or its name covers, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        """Return the area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)


def place_names(marks: Sequence[Mark]) -> tuple[Mark, ...]:
    """Write every name where it covers least of other names, of named marks and of the edge."""
    named = [mark for mark in marks if mark.name]
    covered = [Box(m.x - 6, m.y - 6, m.x + 6, m.y + 6) for m in named]
    covered += [Box(WIDTH, 0, 2 * WIDTH, HEIGHT), Box(-WIDTH, 0, LEFT, HEIGHT)]
    covered += [Box(0, HEIGHT - BOTTOM, WIDTH, 2 * HEIGHT)]
    placed = []
    for mark in marks:
        if mark.name:
            spots = [(name_box(mark._replace(offset=offset)), offset) for offset in NEAR]
            box, offset = min(spots, key=lambda spot: sum(map(spot[0].overlap, covered)))
            covered.append(box)
            mark = mark._replace(offset=offset)
        placed.append(mark)
    return tuple(placed)


def name_box(mark: Mark) -> Box:
    """Return what the name of a mark covers."""
    dx, dy = mark.offset
    width = LETTER * NAME_PX * min(len(mark.name), LONGEST_NAME)
    left, baseline = mark.x + dx - (width if dx < 0 else 0), mark.y + dy
    return Box(left, baseline - 0.8 * NAME_PX, left + width, baseline + 0.2 * NAME_PX)


@dataclass(frozen=True, slots=True)
class Chart:
    """All that a template draws."""

    key: str  # its id in the page
    title: str  # what a screen reader says
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    line: str = ""  # a path
    limit: float | None = None  # pixel of a vertical line: the target
    width: int = WIDTH
    height: int = HEIGHT


def path_of(points: Sequence[tuple[float, float]]) -> str:
    """A line through some pixels, as SVG spells it.

    >>> path_of([(0, 1), (2, 3)])
    'M0 1L2 3'
    """
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points) if points else ""


def steps_of(points: Iterable[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Corners of a stair: a height holds until the next point.

    >>> list(steps_of([(0, 5), (2, 3)]))
    [(0, 5), (2, 5), (2, 3)]
    """
    height: float | None = None
    for x, y in points:
        if height is not None:
            yield x, height
        yield x, y
        height = y
