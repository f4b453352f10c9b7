"""Checks are put together, and say in one sentence which field is not what it must be."""

import math
from typing import Any

import pytest

from tokensearch.documents import (
    FLAG,
    NAME,
    Check,
    choice,
    every,
    fields,
    integer,
    items,
    mapping,
    number,
    optional,
    text,
    validate,
)

SHAPE = fields(
    {"kind": choice("square", "circle"), "sides": items(number(0, 10), least=1, most=3)},
    {"named": optional(NAME), "inside": fields({"hole": FLAG}, closed=True)},
)
WHOLE = {"kind": "square", "sides": [1, 2.5]}


def said(value: Any, wanted: Check = SHAPE) -> str:
    with pytest.raises(ValueError, match=r"\S") as caught:
        validate(value, wanted, "the shape", ValueError)
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.mark.parametrize(
    "more", [{}, {"named": None}, {"named": "a"}, {"inside": {"hole": True}}, {"colour": "blue"}]
)
def test_what_is_wanted_passes(more: dict[str, Any]) -> None:
    validate(WHOLE | more, SHAPE, "the shape", ValueError)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "the shape is None; it must be an object"),
        ({"kind": "square"}, "sides is missing"),
        (WHOLE | {"kind": ["square"]}, "kind is ['square']; it must be one of square, circle"),
        (WHOLE | {"sides": {}}, "sides is {}; it must be a list"),
        (WHOLE | {"sides": []}, "sides has 0 items; it must have from 1 to 3"),
        (WHOLE | {"sides": [1] * 4}, "sides has 4 items; it must have from 1 to 3"),
        (WHOLE | {"sides": [1, -1]}, "sides[1] is -1; it must be a number from 0 to 10"),
        (WHOLE | {"sides": [True]}, "sides[0] is True; it must be a number from 0 to 10"),
        (WHOLE | {"sides": [math.nan]}, "sides[0] is nan; it must be a number from 0 to 10"),
        (WHOLE | {"named": 3}, "named is 3; it must be text of at most 4096 characters"),
        (WHOLE | {"inside": {}}, "inside.hole is missing"),
        (WHOLE | {"inside": {"hole": 1}}, "inside.hole is 1; it must be true or false"),
        (
            WHOLE | {"inside": {"hole": True, "depth": 1}},
            "inside has the unknown field 'depth'",
        ),
    ],
)
def test_what_is_not_is_named_by_its_path(value: Any, sentence: str) -> None:
    assert said(value) == sentence


def test_a_long_value_is_shown_in_part() -> None:
    assert said("x" * 10_000, text(10)) == (
        f"the shape is '{'x' * 59}; it must be text of at most 10 characters"
    )


def test_a_mapping_checks_every_value() -> None:
    assert said({"a": 1, "b\n": "x"}, mapping(integer(0, 3))) == (
        r"'b\n' is 'x'; it must be an integer from 0 to 3"
    )


def test_all_of_several_must_hold() -> None:
    both = every(fields({"a": FLAG}), mapping(FLAG))

    validate({"a": True}, both, "it", ValueError)
    assert said({"a": True, "b": 2}, both) == "'b' is 2; it must be true or false"


def test_a_number_within_bounds_is_of_either_kind_but_no_text() -> None:
    for value in (0, 1, 0.5, 1e18, -(10**18)):
        validate(value, number(), "it", ValueError)
    assert said("1", number()).startswith("the shape is '1'; it must be a number")
    assert said(10**400, number()).endswith("it must be a number from -1e+18 to 1e+18")
