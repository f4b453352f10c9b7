"""What the fields of a document must be: small checks, and how larger ones are made of them.

A check takes a value and raises `MisfitError` where it does not hold; `check` makes the sentence of
it, with the path of the field. What a check lets through can be computed with: no NaN, nothing
infinite, nothing that overflows when it is multiplied.

>>> POINT = fields({"x": number(), "y": number()}, {"name": text()})
>>> validate({"x": 1, "y": [2]}, POINT, "the point", ValueError)
Traceback (most recent call last):
    ...
ValueError: y is [2]; it must be a number from -1e+18 to 1e+18
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
Schema = Mapping[str, Any]


class MisfitError(ValueError):
    """A value is not what a check wants: `path` leads to it, `sentence` says what it is."""

    def __init__(self, sentence: str, path: str = "") -> None:
        super().__init__(sentence)
        self.sentence, self.path = sentence, path

    def within(self, part: str) -> "MisfitError":
        """Return the same, one step further out."""
        joint = "." if self.path and not self.path.startswith("[") else ""
        return MisfitError(self.sentence, f"{part}{joint}{self.path}")


@dataclass(frozen=True, slots=True)
class DescribedCheck:
    """A check that also says in JSON Schema what it wants, as far as that can."""

    run: Check
    schema: Schema

    def __call__(self, value: Any) -> None:
        """Raise MisfitError where a value is not what is wanted."""
        self.run(value)


def schema_of(wanted: Check) -> Schema:
    """Return the JSON Schema of what a check wants; of a plain function, anything."""
    return wanted.schema if isinstance(wanted, DescribedCheck) else {}


def validate(value: object, wanted: Check, what: str, error: type[Exception]) -> None:
    """Raise `error` with one sentence, which names the field, where `value` is not as wanted."""
    try:
        wanted(value)
    except MisfitError as misfit:
        raise error(f"{misfit.path or what} {misfit.sentence}") from None


def leaf(words: str, holds: Callable[[Any], bool], schema: Schema | None = None) -> Check:
    """Return the check of a single value; `words` say what it must be."""

    def check_leaf(value: Any) -> None:
        if not holds(value):
            raise MisfitError(f"is {value!r:.60}; it must be {words}")

    return DescribedCheck(check_leaf, schema or {})


def integer(least: int, most: int) -> Check:
    """An integer, and no bool, within its bounds."""
    return leaf(
        f"an integer from {least} to {most}",
        lambda value: type(value) is int and least <= value <= most,
        {"type": "integer", "minimum": least, "maximum": most},
    )


def number(least: float = -LARGEST, most: float = LARGEST) -> Check:
    """An integer or a float within its bounds; NaN is within none."""
    return leaf(
        f"a number from {least:g} to {most:g}",
        lambda value: (type(value) is int or isinstance(value, float)) and least <= value <= most,
        {"type": "number", "minimum": least, "maximum": most},
    )


def text(most: int = MAX_NAME) -> Check:
    """Text of bounded length."""
    return leaf(
        f"text of at most {most} characters",
        lambda value: type(value) is str and len(value) <= most,
        {"type": "string", "maxLength": most},
    )


def choice(*known: str) -> Check:
    """One of some names."""
    allowed = frozenset(known)
    return leaf(
        f"one of {', '.join(known)}",
        lambda value: type(value) is str and value in allowed,
        {"enum": list(known)},
    )


def every(*wanted: Check) -> Check:
    """All of these at once, in this order."""

    def check_every(value: Any) -> None:
        for part in wanted:
            part(value)

    described = [schema for schema in map(schema_of, wanted) if schema]
    return DescribedCheck(
        check_every, described[0] if len(described) == 1 else {"allOf": described}
    )


def optional(wanted: Check) -> Check:
    """Null, or what is wanted."""

    def check_optional(value: Any) -> None:
        if value is not None:
            wanted(value)

    return DescribedCheck(check_optional, {"anyOf": [{"type": "null"}, schema_of(wanted)]})


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

    schema = {"type": "array", "items": schema_of(wanted), "minItems": least, "maxItems": most}
    return DescribedCheck(check_items, schema)


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

    schema: dict[str, Any] = {
        "type": "object",
        "required": list(needed),
        "properties": {name: schema_of(part) for name, part in known.items()},
    }
    if closed:
        schema["additionalProperties"] = False
    return DescribedCheck(check_fields, schema)


def by_field(name: str, wanted: Check, otherwise: Check) -> Check:
    """An object as wanted where it has this field, and as otherwise where it has not."""

    def check_by_field(value: Any) -> None:
        _check_object(value)
        (wanted if name in value else otherwise)(value)

    schema = {
        "if": {"required": [name]},
        "then": schema_of(wanted),
        "else": schema_of(otherwise),
    }
    return DescribedCheck(check_by_field, schema)


def mapping(wanted: Check) -> Check:
    """An object with any keys, all of whose values are as wanted."""

    def check_mapping(value: Any) -> None:
        _check_object(value)
        for name, item in value.items():
            _check_field(item, wanted, repr(name))

    schema = {"type": "object", "additionalProperties": schema_of(wanted)}
    return DescribedCheck(check_mapping, schema)


def _check_object(value: Any) -> None:
    if type(value) is not dict:
        raise MisfitError(f"is {value!r:.60}; it must be an object")


def _check_field(value: Any, wanted: Check, name: str) -> None:
    try:
        wanted(value)
    except MisfitError as misfit:
        raise misfit.within(name) from None


FLAG = leaf("true or false", lambda value: type(value) is bool, {"type": "boolean"})
NAME = text()
NUMBER = number()
COUNT = integer(0, 2**53)  # what a double holds exactly
SHARE = number(0, 1)
TIME_MS = number(SHORTEST_MS, LONGEST_MS)
PLAIN = leaf(  # what stands in one cell of a table
    "text, a number, true, false or null", lambda value: not isinstance(value, list | dict)
)
