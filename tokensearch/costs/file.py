"""`costs.json`: a cost table as a file, read strictly and written whole."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokensearch.costs.parts import CURVES
from tokensearch.costs.prices import TERMS
from tokensearch.costs.table import CostTable
from tokensearch.documents import (
    COUNT,
    LONGEST_MS,
    NAME,
    NUMBER,
    TIME_MS,
    MisfitError,
    choice,
    fields,
    integer,
    items,
    leaf,
    number,
    optional,
    read_object,
    validate,
)
from tokensearch.errors import MeasurementError
from tokensearch.files import write_whole
from tokensearch.policy import BOUNDS, Policy
from tokensearch.policy.file import to_text
from tokensearch.records.checks import CELL, MODEL
from tokensearch.records.measurements import from_json, to_json
from tokensearch.records.profile_file import check_format

FORMAT, VERSION = "tokensearch.costs", 1

_MS = number(0, LONGEST_MS)
_TOKENS = integer(0, BOUNDS["patch_tokens"][1])
# Products of at most three counts, which fit into 64 bits.
_TERM_FORM = re.compile(r"(1|in|out|gone)(\*(in|out|gone)){0,2}")
_TERM = leaf(
    "a product of at most three of 1, in, out, gone",
    lambda value: type(value) is str and _TERM_FORM.fullmatch(value) is not None,
)
_CURVE = fields(
    {
        "name": choice(*CURVES),
        "counts": items(_TOKENS, least=1),
        "ms": items(_MS, least=1),
        "error_ms": items(number(1e-18, LONGEST_MS), least=1),
        "factors": items(number(1e-6, 1e6), least=1, most=BOUNDS["blocks"][1]),
    }
)
_PRICE = fields(
    {
        "name": NAME,
        "terms": items(_TERM, least=1, most=len(TERMS)),
        "ms": items(_MS, least=1),
        "samples": COUNT,
        "error": number(0),
    }
)
_TRIAL = fields(
    {
        "schedule_hash": NAME,
        "parts_ms": number(0, LONGEST_MS),
        "measured_ms": TIME_MS,
        "passes": COUNT,
    },
    {"launches_ms": _MS},
)
_LAUNCHES = fields(
    {
        "pass_ms": TIME_MS,
        "names": items(NAME, most=1000),
        "added_ms": items(number(-LONGEST_MS, LONGEST_MS), most=1000),
    }
)


def _curve(value: Any) -> None:
    """A curve of as many times and errors as counts, which ascend."""
    _CURVE(value)
    counts = value["counts"]
    if not len(counts) == len(value["ms"]) == len(value["error_ms"]):
        raise MisfitError("has counts, ms and error_ms of different lengths")
    if any(upper <= lower for lower, upper in pairwise(counts)):
        raise MisfitError("does not ascend", "counts")


def _launches(value: Any) -> None:
    """Launches of as many parts as names."""
    _LAUNCHES(value)
    if len(value["names"]) != len(value["added_ms"]):
        raise MisfitError("has names and added_ms of different lengths")


def _price(value: Any) -> None:
    """A price of as many coefficients as terms."""
    _PRICE(value)
    if len(value["terms"]) != len(value["ms"]):
        raise MisfitError("has terms and ms of different lengths")


_COSTS = fields(
    {
        "model": MODEL,
        "cell": CELL,
        "baseline_ms": TIME_MS,
        "curves": items(_curve, most=len(CURVES)),
        "prices": items(_price, most=1000),
        "calibration": fields(
            {
                "fixed_ms": number(-LONGEST_MS, LONGEST_MS),
                "scale": number(1e-6, 1e6),
                "trials": items(_TRIAL),
                "error": number(0),
                "worst": number(0),
            }
        ),
        "passes": COUNT,
        "seconds": number(0),
        "seed": NUMBER,
    },
    {"launches": optional(_launches)},
)


def save_costs(table: CostTable, path: str | Path) -> None:
    """Write a cost table, whole; RunError where it cannot be written, with the old file left."""
    write_whole(Path(path), to_text(costs_to_json(table)))


def load_costs(path: str | Path) -> CostTable:
    """Read a cost table; MeasurementError names the file when it cannot be one."""
    path = Path(path)
    try:
        return costs_from_json(read_object(path, what="a cost table", error=MeasurementError))
    except MeasurementError as error:
        error.add_note(f"in {path}")
        raise


def costs_to_json(table: CostTable) -> dict[str, Any]:
    """Return the table as the fields of format version 1."""
    written = asdict(table)
    return {"format": FORMAT, "version": VERSION, **written, "cell": to_json(table.cell)}


def costs_from_json(document: Mapping[str, Any]) -> CostTable:
    """Return the table that `costs_to_json` wrote; MeasurementError where it cannot be."""
    check_format(document, "a cost table", FORMAT, VERSION)
    validate(document, _COSTS, "the cost table", MeasurementError)
    table = from_json(CostTable, document)
    _check_fit(table)
    return table


def _check_fit(table: CostTable) -> None:
    """Refuse a table whose parts do not belong together, or that predicts what no pass takes."""
    for curve in table.curves:
        if len(curve.factors) != table.model.blocks:
            raise MeasurementError(
                f"the curve {curve.name} has factors of {len(curve.factors)} blocks; the model has "
                f"{table.model.blocks}"
            )
    for kind, names in (("curve", table.curves), ("price", table.prices)):
        if len({one.name for one in names}) < len(names):
            raise MeasurementError(f"the cost table has two {kind}s of one name")
    if not 0 < (whole_ms := table.predict(Policy(table.model))) < LONGEST_MS:
        raise MeasurementError(
            f"the cost table predicts {whole_ms:g} ms for the baseline, which no pass takes"
        )
