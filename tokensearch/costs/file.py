"""`costs.json`: a cost table as a file, read strictly and written whole."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from tokensearch.costs.curves import Curve
from tokensearch.costs.prices import Price
from tokensearch.costs.table import Calibration, CostTable, Trial
from tokensearch.errors import MeasurementError, PolicyError
from tokensearch.policy import ModelSpec
from tokensearch.policy.file import MAX_BYTES, to_text, write_whole
from tokensearch.profiles import check_format
from tokensearch.records import cell_from_json, to_json

FORMAT, VERSION = "tokensearch.costs", 1

_Record = TypeVar("_Record")


def save_costs(table: CostTable, path: str | Path) -> None:
    """Write a cost table; an interrupted write leaves the old file."""
    write_whole(Path(path), to_text(costs_to_json(table)))


def load_costs(path: str | Path) -> CostTable:
    """Read a cost table; MeasurementError names the file when it cannot be one."""
    path = Path(path)
    try:
        return costs_from_json(_document(path))
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
    try:
        return _table(document)
    except (KeyError, TypeError, ValueError, AttributeError, PolicyError) as error:
        raise MeasurementError(f"not a whole cost table: {error}") from error


def _document(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise MeasurementError(f"the file has more than {MAX_BYTES} bytes; no cost table has")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if isinstance(error, MeasurementError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise MeasurementError(f"a cost table cannot be read: {reason}") from error
    if not isinstance(document, dict):
        raise MeasurementError(f"a cost table is an object, not a {type(document).__name__}")
    return document


def _table(document: Mapping[str, Any]) -> CostTable:
    calibration = document["calibration"]
    trials = tuple(_record(Trial, item) for item in calibration["trials"])
    return _record(
        CostTable,
        {
            **document,
            "model": ModelSpec(**document["model"]),
            "cell": cell_from_json(document["cell"]),
            "curves": tuple(_record(Curve, item) for item in document["curves"]),
            "prices": tuple(_record(Price, item) for item in document["prices"]),
            "calibration": _record(Calibration, {**calibration, "trials": trials}),
        },
    )


def _record(kind: type[_Record], written: Mapping[str, Any]) -> _Record:
    """Build a record from its fields; lists come back as the tuples that they were."""
    known = {item.name: written[item.name] for item in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: tuple(it) if isinstance(it, list) else it for name, it in known.items()})
