"""What the fields of a document must be: small checks, and how larger ones are made of them.

A check takes a value and raises `MisfitError` where it does not hold; `check` makes the sentence of
it, with the path of the field. What a check lets through can be computed with: no NaN, nothing
infinite, nothing that overflows when it is multiplied.

>>> POINT = fields({"x": number(), "y": number()}, {"name": text()})
>>> check({"x": 1, "y": [2]}, POINT, "the point", ValueError)
Traceback (most recent call last):
    ...
ValueError: y is [2]; it must be a number from -1e+18 to 1e+18
"""

from collections.abc import Callable, Mapping
from typing import Any

# Longest path on Linux (PATH_MAX): names, models and files are no longer.
MAX_NAME = 4096
# Items of one list; a profile has some thousand operators, of some hundred passes each.
MAX_ITEMS = 200_000
# Between these every sum, product of two and quotient of what files hold is finite.
LARGEST = 1e18
# A pass takes between a picosecond and twelve days.
SHORTEST_MS, LONGEST_MS = 1e-9, 1e9

Check = Callable[[Any], None]


class MisfitError(ValueError):
    """A value is not what a check wants: `path` leads to it, `sentence` says what it is."""

    def __init__(self, sentence: str, path: str = "") -> None:
        super().__init__(sentence)
        self.sentence, self.path = sentence, path

    def within(self, part: str) -> "MisfitError":
        """Return the same, one step further out."""
        joint = "." if self.path and not self.path.startswith("[") else ""
        return MisfitError(self.sentence, f"{part}{joint}{self.path}")


def check(value: object, wanted: Check, what: str, error: type[Exception]) -> None:
    """Raise `error` with one sentence, which names the field, where `value` is not as wanted."""
    try:
        wanted(value)
    except MisfitError as misfit:
        raise error(f"{misfit.path or what} {misfit.sentence}") from None


def leaf(words: str, holds: Callable[[Any], bool]) -> Check:
    """Return the check of a single value; `words` say what it must be."""

    def check_one(value: Any) -> None:
        if not holds(value):
            raise MisfitError(f"is {value!r:.60}; it must be {words}")

    return check_one


def integer(least: int, most: int) -> Check:
    """An integer, and no bool, within its bounds."""
    return leaf(
        f"an integer from {least} to {most}",
        lambda value: type(value) is int and least <= value <= most,
    )


def number(least: float = -LARGEST, most: float = LARGEST) -> Check:
    """An integer or a float within its bounds; NaN is within none."""
    return leaf(
        f"a number from {least:g} to {most:g}",
        lambda value: (type(value) is int or isinstance(value, float)) and least <= value <= most,
    )


def text(most: int = MAX_NAME) -> Check:
    """Text of bounded length."""
    return leaf(
        f"text of at most {most} characters",
        lambda value: type(value) is str and len(value) <= most,
    )


def choice(*known: str) -> Check:
    """One of some names."""
    allowed = frozenset(known)
    return leaf(f"one of {', '.join(known)}", lambda value: type(value) is str and value in allowed)


def every(*wanted: Check) -> Check:
    """All of these at once, in this order."""

    def check_every(value: Any) -> None:
        for one in wanted:
            one(value)

    return check_every


def optional(wanted: Check) -> Check:
    """Null, or what is wanted."""

    def check_optional(value: Any) -> None:
        if value is not None:
            wanted(value)

    return check_optional


def items(wanted: Check, *, least: int = 0, most: int = MAX_ITEMS) -> Check:
    """A list of so many items, all of which are as wanted."""

    def check_items(value: Any) -> None:
        if not isinstance(value, list | tuple):  # JSON's, or a record's own
            raise MisfitError(f"is {value!r:.60}; it must be a list")
        if not least <= len(value) <= most:
            raise MisfitError(f"has {len(value)} items; it must have from {least} to {most}")
        for index, item in enumerate(value):
            try:
                wanted(item)
            except MisfitError as misfit:
                raise misfit.within(f"[{index}]") from None

    return check_items


def fields(
    needed: Mapping[str, Check], more: Mapping[str, Check] | None = None, *, closed: bool = False
) -> Check:
    """An object that has all fields of `needed`, and may have those of `more`.

    What else it has passes, if it is not `closed`.
    """
    known = {**needed, **(more or {})}

    def check_fields(value: Any) -> None:
        _check_object(value)
        if closed and (unknown := value.keys() - known.keys()):
            raise MisfitError(f"has the unknown field {min(unknown)!r:.60}")
        for name, wanted in known.items():
            if name in value:
                _check_field(value[name], wanted, name)
            elif name in needed:
                raise MisfitError("is missing", name)

    return check_fields


def mapping(wanted: Check) -> Check:
    """An object with any keys, all of whose values are as wanted."""

    def check_mapping(value: Any) -> None:
        _check_object(value)
        for name, item in value.items():
            _check_field(item, wanted, repr(name))

    return check_mapping


def _check_object(value: Any) -> None:
    if type(value) is not dict:
        raise MisfitError(f"is {value!r:.60}; it must be an object")


def _check_field(value: Any, wanted: Check, name: str) -> None:
    try:
        wanted(value)
    except MisfitError as misfit:
        raise misfit.within(name) from None


FLAG = leaf("true or false", lambda value: type(value) is bool)
NAME = text()
NUMBER = number()
COUNT = integer(0, 2**53)  # what a double holds exactly
SHARE = number(0, 1)
TIME_MS = number(SHORTEST_MS, LONGEST_MS)
PLAIN = leaf(  # what stands in one cell of a table
    "text, a number, true, false or null", lambda value: not isinstance(value, list | dict)
)
