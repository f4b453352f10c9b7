"""Policy files, version 1: small JSON documents without code, read strictly and written whole."""

import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from tokensearch.errors import PolicyError, TokensearchWarning
from tokensearch.policy.model_spec import ModelSpec
from tokensearch.policy.policy import Evidence, Policy, step_fields
from tokensearch.policy.policy_set import PolicySet
from tokensearch.policy.steps import Keep, Pool, Prune, PruneOrPool, Step

FORMAT, SET_FORMAT, VERSION = "tokensearch.policy", "tokensearch.front", 1
MAX_BYTES = 8 * 2**20  # a policy is a few kB, a front of hundreds with evidence under 1 MB
SCHEMA_FILE = Path(__file__).with_name("policy-v1.schema.json")

_Record = TypeVar("_Record")
# Per step: its record, the fields that it needs, and those that it may have.
_STEP_FIELDS: dict[str, tuple[type[Keep | Step], frozenset[str], frozenset[str]]] = {
    "keep": (Keep, frozenset({"block"}), frozenset()),
    "prune": (Prune, frozenset({"block", "keep"}), frozenset({"score", "rest"})),
    "pool": (Pool, frozenset({"block", "keep"}), frozenset({"match", "score"})),
    "prune_or_pool": (
        PruneOrPool,
        frozenset({"block", "keep", "threshold"}),
        frozenset({"score"}),
    ),
}
_EVIDENCE = ("cell", "latency", "accuracy", "baseline", "confirmed")
# What choosing and showing a policy lean on; the schema asks for the same.
_FIGURES = (
    ("cell", "batch"),
    ("latency", "median_ms"),
    ("accuracy", "top1"),
    ("baseline", "median_ms"),
)


def load(path: str | Path) -> Policy:
    """Read a policy file; PolicyError names the file when it cannot be one."""
    return _read(path, FORMAT, policy_from_json)


def load_set(path: str | Path) -> PolicySet:
    """Read a policy set (`front.json`); PolicyError names the file when it cannot be one."""
    return _read(path, SET_FORMAT, set_from_json)


def save(policy: Policy, path: str | Path) -> None:
    """Write a policy file; an interrupted write leaves the old file."""
    write_whole(Path(path), to_text(policy_to_json(policy)))


def save_set(policies: PolicySet, path: str | Path) -> None:
    """Write a policy set; an interrupted write leaves the old file."""
    write_whole(Path(path), to_text(set_to_json(policies)))


def is_file(name: str | Path) -> bool:
    """Whether `name` means a file and not a preset: it is one, or could be nothing else."""
    path = Path(name)
    return path.suffix == ".json" or len(path.parts) > 1 or path.is_file()


def to_text(document: Mapping[str, Any]) -> str:
    """Return JSON as people read it: indented, ended by a newline, no NaN."""
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, so that nobody ever reads half a file."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def policy_to_json(policy: Policy) -> dict[str, Any]:
    """Return the policy as the fields of format version 1."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": {key: value for key, value in asdict(policy.model).items() if value is not None},
        "steps": [step_fields(step) for step in policy.steps],
        "proportional_attention": policy.proportional_attention,
        "last_block": policy.last_block,
        "evidence": [
            {**{name: getattr(item, name) for name in _EVIDENCE}, **item.extra}
            for item in policy.evidence
        ],
        "provenance": dict(policy.provenance),
        **policy.extra,
    }


def policy_from_json(document: Mapping[str, Any]) -> Policy:
    """Build a policy from the fields of format version 1."""
    known = {
        "format",
        "version",
        "model",
        "steps",
        "proportional_attention",
        "last_block",
        "evidence",
        "provenance",
    }
    _check_version(document, FORMAT)
    model = _typed(document, "model", dict)
    steps = [_step(item) for item in _typed(document, "steps", list)]
    proportional = _typed(document, "proportional_attention", bool, False)
    return Policy(
        model=_model(model),
        steps=tuple(step for step in steps if not isinstance(step, Keep)),
        proportional_attention=proportional,
        last_block=_typed(document, "last_block", str, "full"),
        evidence=tuple(_evidence(item) for item in _typed(document, "evidence", list, [])),
        provenance=_typed(document, "provenance", dict, {}),
        extra=_unknown(document, known, "the policy"),
    )


def set_to_json(policies: PolicySet) -> dict[str, Any]:
    """Return the set as the fields of format version 1."""
    members = [policy_to_json(policy) for policy in policies.policies]
    return {"format": SET_FORMAT, "version": VERSION, **policies.extra, "policies": members}


def set_from_json(document: Mapping[str, Any]) -> PolicySet:
    """Build a policy set from the fields of format version 1."""
    _check_version(document, SET_FORMAT)
    policies = tuple(policy_from_json(item) for item in _typed(document, "policies", list))
    return PolicySet(
        policies, extra=_unknown(document, {"format", "version", "policies"}, "the set")
    )


def _read(
    path: str | Path, expected: str, build: Callable[[Mapping[str, Any]], _Record]
) -> _Record:
    path = Path(path)
    try:
        return build(_document(path, expected))
    except PolicyError as error:
        error.add_note(f"in {path}")
        raise


def _document(path: Path, expected: str) -> Mapping[str, Any]:
    """Read a JSON object, within the size limit."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"the file cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise PolicyError(f"the file is larger than {MAX_BYTES // 2**20} MiB, which no policy is")
    try:
        document = json.loads(data, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"the file is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise PolicyError(f"the file holds a {type(document).__name__}; {expected} is an object")
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number there")


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError(f"{digits} is too large")
    return number


def _check_version(document: Mapping[str, Any], expected: str) -> None:
    if not isinstance(document, dict):
        raise PolicyError(f"a policy is an object, not {type(document).__name__}")
    found, version = document.get("format"), document.get("version")
    if found != expected:
        raise PolicyError(f"format is {found!r}; this reader wants {expected!r}")
    if type(version) is not int or version != VERSION:
        raise PolicyError(f"version is {version!r}; this reader knows {VERSION}")


_MISSING: Any = object()


def _typed(document: Mapping[str, Any], name: str, kind: type, default: Any = _MISSING) -> Any:
    """Return a field, or its default; PolicyError when it is absent or of another type."""
    value = document.get(name, default)
    if value is _MISSING:
        raise PolicyError(f"field {name!r} is missing")
    if type(value) is not kind:
        raise PolicyError(f"field {name!r} is {value!r:.60}; it must be of type {kind.__name__}")
    return value


def _model(fields: Mapping[str, Any]) -> ModelSpec:
    counts = ("blocks", "patch_tokens", "prefix_tokens", "width")
    _unknown(fields, {"name", "weights", *counts}, "model", keep=False)
    return ModelSpec(
        _typed(fields, "name", str),
        **{name: _typed(fields, name, int) for name in counts},
        weights=_typed(fields, "weights", str) if "weights" in fields else None,
    )


def _step(fields: Any) -> Step | Keep:
    if not isinstance(fields, dict):
        raise PolicyError(f"a step is {fields!r:.60}; it must be an object")
    op = fields.get("op")
    if not isinstance(op, str) or op not in _STEP_FIELDS:
        raise PolicyError(f"a step's op is {op!r:.60}; known are {', '.join(_STEP_FIELDS)}")
    kind, needed, allowed = _STEP_FIELDS[op]
    surplus, missing = fields.keys() - needed - allowed - {"op"}, needed - fields.keys()
    if surplus or missing:  # a field that changes the maths must not be passed over
        what = (
            f"lacks {sorted(missing)[0]!r}"
            if missing
            else f"has the unknown field {sorted(surplus)[0]!r}"
        )
        raise PolicyError(f"a {op} step {what}")
    return kind(**{name: value for name, value in fields.items() if name != "op"})


def _evidence(fields: Any) -> Evidence:
    if not isinstance(fields, dict):
        raise PolicyError(f"evidence is {fields!r:.60}; it must be an object")
    records = {
        name: _typed(fields, name, bool if name == "confirmed" else dict) for name in _EVIDENCE
    }
    for name, figure in _FIGURES:
        value = records[name].get(figure)
        if type(value) not in {int, float} or value < 0 or (value == 0 and name != "accuracy"):
            raise PolicyError(f"evidence has {name}.{figure} {value!r:.60}; it must be above 0")
    return Evidence(
        **records, extra={key: value for key, value in fields.items() if key not in _EVIDENCE}
    )


def _unknown(
    document: Mapping[str, Any], known: set[str], where: str, *, keep: bool = True
) -> dict[str, Any]:
    """Return the fields that this version does not know, with a warning."""
    unknown = {key: value for key, value in document.items() if key not in known}
    if unknown and not keep:
        raise PolicyError(f"{where} has the unknown field {min(unknown)!r}")
    if unknown:
        names = ", ".join(sorted(unknown))
        warnings.warn(
            f"{where} has fields that this version keeps but ignores: {names}",
            TokensearchWarning,
            stacklevel=2,
        )
    return unknown
