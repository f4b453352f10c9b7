"""Policy files, version 1: small JSON documents without code, read strictly and written whole."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from re import fullmatch, sub
from typing import Any, TypeVar

from tokensearch.documents import (
    COUNT,
    FLAG,
    MAX_TEXT,
    NAME,
    NUMBER,
    SHARE,
    TIME_MS,
    by_field,
    bytes_of,
    choice,
    fields,
    integer,
    items,
    leaf,
    number,
    read_object,
    validate,
)
from tokensearch.errors import PolicyError, TokensearchWarning
from tokensearch.files import write_whole
from tokensearch.policy.model_spec import BOUNDS, ModelSpec
from tokensearch.policy.objective import OBJECTIVES
from tokensearch.policy.policy import Evidence, Policy
from tokensearch.policy.policy_set import PolicySet, worth_of
from tokensearch.policy.step_fields import check_step, step_fields, step_from_fields
from tokensearch.policy.steps import Keep
from tokensearch.policy.tensors import MAX_TENSORS_BYTES, Tensors

FORMAT, SET_FORMAT, VERSION = "tokensearch.policy", "tokensearch.front", 1
SCHEMA_FILE = Path(__file__).with_name("policy-v1.schema.json")

_Record = TypeVar("_Record")

MAX_STEPS = 3 * BOUNDS["blocks"][1]  # a block may hold a prune and a pool; a keep says nothing
MAX_POLICIES = 10_000  # of a front; a search confirms some dozens
MAX_EVIDENCE = 1_000  # cells of one policy

# What choosing and showing a policy lean on; whatever else a newer writer says is kept.
_INTERVAL = {"low": NUMBER, "high": NUMBER}
_ACCURACY = {
    "kind": NAME,
    "split": NAME,
    "images": integer(1, 2**53),
    "right": COUNT,
    "agreed": COUNT,
    "kl": NUMBER,
    "ce": NUMBER,
    **_INTERVAL,
}
COSINE = number(-1, 1)
_EMBEDDED = {
    "images": integer(1, 2**53),
    "right": COUNT,
    **dict.fromkeys(("kind", "right_by", "split"), NAME),
    **dict.fromkeys(("recall_at_1", "recall_at_10", "knn", "probe"), SHARE),
    **_INTERVAL,
}
_SCORE = by_field(
    "cosine",
    fields({"cosine": COSINE, "share": SHARE}, _EMBEDDED),
    fields({"top1": SHARE}, _ACCURACY),
)
_EVIDENCE = {
    "cell": fields(
        {"batch": integer(1, 2**20)},
        {
            "device": NAME,
            "dtype": NAME,
            "resolution": integer(1, 2**16),
            "backend": NAME,
            "machine": fields({}, {"name": NAME}),
        },
    ),
    "latency": fields({"median_ms": TIME_MS}),
    "accuracy": _SCORE,
    "baseline": fields({"median_ms": TIME_MS}),
    "confirmed": FLAG,
}
HEX_DIGITS = leaf(
    "hexadecimal digits",
    lambda value: type(value) is str and fullmatch("[0-9a-f]+", value) is not None,
    {"type": "string", "pattern": "^[0-9a-f]+$", "maxLength": MAX_TEXT},
)
_MEASURED = {
    "select": _SCORE,
    "choice": by_field(
        "cosine_low",
        fields(
            {"right": HEX_DIGITS, "cosine_low": COSINE, "cosine_high": COSINE},
            {"groups": HEX_DIGITS},
        ),
        fields({"right": HEX_DIGITS, "kl_low": NUMBER, "kl_high": NUMBER}, {"groups": HEX_DIGITS}),
    ),
    "objective": choice(*OBJECTIVES),
    "comparison": fields({"ratio": NUMBER, **_INTERVAL}, {"low_ms": TIME_MS, "high_ms": TIME_MS}),
    "paired": fields({"difference": NUMBER, **_INTERVAL}),
}
# A bare name: what lies elsewhere is nobody's to read.
_TENSORS_NAME = leaf(
    "the name of a file in the same folder, which ends in .safetensors",
    lambda value: (
        type(value) is str and fullmatch(r"[\w-][\w. -]{0,200}\.safetensors", value) is not None
    ),
    {"type": "string", "pattern": r"^[\w-][\w. -]{0,200}\.safetensors$"},
)
_SHA256 = leaf(
    "64 hexadecimal digits",
    lambda value: type(value) is str and fullmatch("[0-9a-f]{64}", value) is not None,
    {"type": "string", "pattern": "^[0-9a-f]{64}$"},
)
_POLICY_FIELDS = {
    "format": choice(FORMAT),
    "version": integer(VERSION, VERSION),
    "model": fields(
        {"name": NAME, **{name: integer(*bounds) for name, bounds in BOUNDS.items()}},
        {"weights": NAME},
        closed=True,
    ),
    "steps": items(check_step, most=MAX_STEPS),
}
_POLICY_MORE = {
    "proportional_attention": FLAG,
    "last_block": choice("full", "prefix_only"),
    "counts": choice("static", "per_image"),
    "evidence": items(fields(_EVIDENCE, _MEASURED), most=MAX_EVIDENCE),
    "provenance": fields({}),
    "tensors": fields(
        {"file": _TENSORS_NAME, "sha256": _SHA256, "bytes": integer(1, MAX_TENSORS_BYTES)},
        closed=True,
    ),
}
_POLICY = fields(_POLICY_FIELDS, _POLICY_MORE)
_SET_FIELDS = {
    "format": choice(SET_FORMAT),
    "version": integer(VERSION, VERSION),
    "policies": items(fields({}), most=MAX_POLICIES),
}


def load(path: str | Path) -> Policy:
    """Read a policy file, with its tensors; PolicyError names the file when it cannot be one."""
    return _read(path, "a policy", policy_from_json)


def load_set(path: str | Path) -> PolicySet:
    """Read a policy set (`front.json`); PolicyError names the file when it cannot be one."""
    return _read(path, "a policy set", set_from_json)


def save(policy: Policy, path: str | Path) -> None:
    """Write a policy file, whole; RunError where it cannot be written, with the old file left.

    Its tensors go to a file beside it, first, which has a part of their hash in the name: neither
    weights of that name nor the tensors of the old file are written over.
    """
    path = Path(path)
    name = _name_tensors(policy, path.stem)
    _save_tensors(policy, path.with_name(name))
    write_whole(path, to_text(policy_to_json(policy, tensors_file=name)))


def save_set(policies: PolicySet, path: str | Path) -> None:
    """Write a policy set, whole; RunError where it cannot be written, with the old file left.

    Tensors of its members go to files beside it, as `save` names them.
    """
    path = Path(path)
    names = [_name_tensors(policy, path.stem) for policy in policies.policies]
    for policy, name in zip(policies.policies, names, strict=True):
        _save_tensors(policy, path.with_name(name))
    write_whole(path, to_text(set_to_json(policies, tensors_files=names)))


def _name_tensors(policy: Policy, stem: str) -> str:
    part = "" if policy.tensors is None else f"-{policy.tensors.sha256[:16]}"
    return f"{sub(_UNREADABLE, '-', stem)[:MOST_STEM]}{part}.safetensors"


# What `_TENSORS_NAME` has no place for, in the names that users choose.
_UNREADABLE, MOST_STEM = r"[^\w. -]|^[. ]", 160


def _save_tensors(policy: Policy, path: Path) -> None:
    if policy.tensors is not None:
        _ = policy.tensors.by_name  # PolicyError where the policy was read without them
        assert policy.tensors.data is not None
        write_whole(path, policy.tensors.data)


def is_file(name: str | Path) -> bool:
    """Whether `name` means a file and not a preset: it is one, or could be nothing else."""
    path = Path(name)
    return path.suffix == ".json" or len(path.parts) > 1 or path.is_file()


def holds_set(path: str | Path) -> bool:
    """Whether a file is, by its own word, a policy set; what cannot be read is none."""
    try:
        return (
            read_object(Path(path), what="a policy", error=PolicyError).get("format") == SET_FORMAT
        )
    except PolicyError:
        return False


def load_policies(path: str | Path) -> tuple[Policy, ...]:
    """Return the policies of a front, or the one of a policy file; PolicyError as of both."""
    return load_set(path).policies if holds_set(path) else (load(path),)


def to_text(document: Mapping[str, Any]) -> str:
    """Return JSON as people read it: indented, ended by a newline, no NaN."""
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def policy_to_json(policy: Policy, *, tensors_file: str = "policy.safetensors") -> dict[str, Any]:
    """Return the policy as the fields of format version 1; tensors are named, and not in it."""
    document = {
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
    }
    if policy.counts != "static":
        document["counts"] = policy.counts
    if policy.tensors is not None:
        known = {"sha256": policy.tensors.sha256, "bytes": policy.tensors.size}
        document["tensors"] = {"file": tensors_file, **known}
    return {**document, **policy.extra}


def policy_from_json(document: Mapping[str, Any], folder: Path | None = None) -> Policy:
    """Build a policy from the fields of format version 1.

    folder  where its tensors file lies; None leaves the tensors unread, so that the policy can be
            shown and compared, but not applied
    """
    _check_version(document, FORMAT)
    validate(document, _POLICY, "the policy", PolicyError)
    steps = [step_from_fields(item) for item in document["steps"]]
    return Policy(
        model=ModelSpec(**document["model"]),
        steps=tuple(step for step in steps if not isinstance(step, Keep)),
        proportional_attention=document.get("proportional_attention", False),
        last_block=document.get("last_block", "full"),
        counts=document.get("counts", "static"),
        evidence=tuple(_evidence(item) for item in document.get("evidence", [])),
        provenance=document.get("provenance", {}),
        extra=_unknown(document, {*_POLICY_FIELDS, *_POLICY_MORE}, "the policy"),
        tensors=_tensors(document.get("tensors"), folder),
    )


def _tensors(written: Mapping[str, Any] | None, folder: Path | None) -> Tensors | None:
    """Read the tensors file; its size and hash are held against the policy's before its content."""
    if written is None:
        return None
    if folder is None:
        return Tensors(written["sha256"], written["bytes"])
    name, path = written["file"], folder / written["file"]
    try:
        data = bytes_of(path, what="a tensors file", error=PolicyError, most=MAX_TENSORS_BYTES)
        if len(data) != written["bytes"] or sha256(data).hexdigest() != written["sha256"]:
            raise PolicyError("the file is not the one that the policy was saved with")
        return Tensors.from_bytes(data)
    except PolicyError as error:
        error.add_note(f"in {name}, which the policy needs; copy both files together")
        raise


def set_to_json(
    policies: PolicySet, *, tensors_files: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return the set as the fields of format version 1."""
    names = tensors_files or ["policy.safetensors"] * len(policies.policies)
    members = [
        policy_to_json(policy, tensors_file=name)
        for policy, name in zip(policies.policies, names, strict=True)
    ]
    return {"format": SET_FORMAT, "version": VERSION, **policies.extra, "policies": members}


def set_from_json(document: Mapping[str, Any], folder: Path | None = None) -> PolicySet:
    """Build a policy set from the fields of format version 1; `folder` as `policy_from_json`'s."""
    _check_version(document, SET_FORMAT)
    validate(document, fields(_SET_FIELDS), "the set", PolicyError)
    policies = tuple(policy_from_json(item, folder) for item in document["policies"])
    return PolicySet(policies, extra=_unknown(document, {*_SET_FIELDS}, "the set"))


def _read(
    path: str | Path, what: str, build: Callable[[Mapping[str, Any], Path], _Record]
) -> _Record:
    path = Path(path)
    try:
        return build(read_object(path, what=what, error=PolicyError), path.parent)
    except PolicyError as error:
        error.add_note(f"in {path}")
        raise


# What to do where a user names the one kind of file for the other.
_OTHERWISE = {
    SET_FORMAT: "the file holds a front of several policies; name one of them, such as "
    "policies/00.json of its run, or choose with tokensearch.load_set(FILE).best(latency=...)",
    FORMAT: "the file holds one policy and no front; read it with tokensearch.load(FILE), or name "
    "the front.json of a run",
}


def _check_version(document: Mapping[str, Any], expected: str) -> None:
    if not isinstance(document, dict):
        raise PolicyError(f"a policy is an object, not a {type(document).__name__}")
    given, version = document.get("format"), document.get("version")
    if given != expected and isinstance(given, str) and given in _OTHERWISE:
        raise PolicyError(_OTHERWISE[given])
    if given != expected:
        raise PolicyError(f"format is {given!r:.60}; this reader wants {expected!r}")
    if type(version) is not int or version != VERSION:
        raise PolicyError(f"version is {version!r:.60}; this reader knows {VERSION}")


def _evidence(written: Mapping[str, Any]) -> Evidence:
    evidence = Evidence(
        **{name: written[name] for name in _EVIDENCE},
        extra={key: value for key, value in written.items() if key not in _EVIDENCE},
    )
    try:
        worth_of(evidence)
    except KeyError as error:
        raise PolicyError(
            f"evidence lacks the figure {error}, by which its objective chooses"
        ) from None
    return evidence


def _unknown(document: Mapping[str, Any], known: set[str], where: str) -> dict[str, Any]:
    """Return the fields that this version does not know, with a warning."""
    unknown = {key: value for key, value in document.items() if key not in known}
    if unknown:
        names = ", ".join(f"{key:.60}" for key in sorted(unknown)[:5])
        warnings.warn(
            f"{where} has fields that this version keeps but ignores: {names}",
            TokensearchWarning,
            stacklevel=2,
        )
    return unknown
