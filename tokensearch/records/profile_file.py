"""`profile.json`: a profile as a document, read strictly."""

from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from typing import Any

from tokensearch.documents import (
    COUNT,
    FLAG,
    LONGEST_MS,
    NAME,
    TIME_MS,
    choice,
    fields,
    integer,
    items,
    number,
    optional,
    text,
    validate,
)
from tokensearch.documents.reading import MAX_TEXT
from tokensearch.errors import MeasurementError
from tokensearch.policy import BOUNDS
from tokensearch.policy.file import policy_from_json
from tokensearch.records.checks import CELL, CONDITIONS, LATENCY, POLICY
from tokensearch.records.measurements import Latency, from_json, to_json
from tokensearch.records.profile import PHASES, Operator, PhaseTime, Profile, Work

FORMAT, VERSION = "tokensearch.profile", 1
DIGITS, ROUNDED_MS = 6, 1e-6  # of a millisecond in the file
MAX_PROFILE_BYTES = 16 * 2**20  # one of ViT-L is 2 MB: operators by phase, block and pass

_PART_MS = number(0, LONGEST_MS)
_PLACE = {
    "block": optional(integer(0, BOUNDS["blocks"][1] - 1)),
    "phase": choice(*PHASES),
}
_PHASE_TIME = fields(
    {**_PLACE, "passes_ms": items(number(-LONGEST_MS, LONGEST_MS))}, {"borders": number(0, 1e9)}
)
_PROFILE = fields(
    {
        "name": NAME,
        "model": NAME,
        "schedule_hash": NAME,
        "patch_tokens": items(integer(0, BOUNDS["patch_tokens"][1])),
        "prefix_tokens": integer(*BOUNDS["prefix_tokens"]),
        "policy": POLICY,
        "cell": CELL,
        "session": NAME,
        "plain": LATENCY,
        "stamped": items(_PHASE_TIME, least=1),
        "floor": items(_PHASE_TIME),
        "operators": items(
            fields(
                {
                    **_PLACE,
                    "name": text(MAX_TEXT),
                    "kernel": FLAG,
                    "calls": number(0),
                    "passes_ms": items(_PART_MS),
                }
            )
        ),
        "traced_ms": items(TIME_MS),
        "work": items(fields({**_PLACE, "flop": number(0), "bytes": number(0)})),
        "ceilings": optional(
            fields({"gflop_s": number(1e-9), "gbyte_s": number(1e-9)}),
        ),
        "conditions": optional(CONDITIONS),
    },
    {
        "peak_bytes": optional(COUNT),
        "sdpa": optional(NAME),
        "border_ms": _PART_MS,
        "floor_plain": optional(LATENCY),
    },
)


def profile_to_json(profile: Profile) -> dict[str, Any]:
    """Return a profile as `profile.json` holds it, with the figures readers look for first."""
    written = {item.name: getattr(profile, item.name) for item in dataclass_fields(profile)}
    parts = {
        name: [_rounded(asdict(item)) for item in written[name]]
        for name in ("stamped", "floor", "operators", "work")
    }
    sums = {phase: profile.phase_ms(phase) for phase in PHASES}
    return {
        "format": FORMAT,
        "version": VERSION,
        **written,
        "pass_ms": profile.pass_ms,
        "phases_ms": {phase: ms for phase, ms in sums.items() if ms},
        "cell": to_json(profile.cell),
        "plain": to_json(profile.plain),
        "floor_plain": None if profile.floor_plain is None else to_json(profile.floor_plain),
        "ceilings": None if profile.ceilings is None else asdict(profile.ceilings),
        "conditions": None if profile.conditions is None else asdict(profile.conditions),
        **parts,
    }


def profile_from_json(document: Mapping[str, Any]) -> Profile:
    """Return the profile that `profile_to_json` wrote; MeasurementError where it cannot be."""
    check_format(document, "a profile", FORMAT, VERSION)
    validate(document, _PROFILE, "the profile", MeasurementError)
    return _checked(from_json(Profile, document))


def check_format(document: Mapping[str, Any], what: str, name: str, version: int) -> None:
    """Refuse a document of another format or version, by what it should be."""
    if document.get("format") != name or document.get("version") != version:
        raise MeasurementError(
            f"format is {document.get('format')!r:.60}, version {document.get('version')!r:.60}; "
            f"{what} has {name!r}, version {version}"
        )


def _checked(profile: Profile) -> Profile:
    """Return a profile whose parts belong together; MeasurementError where they do not."""
    blocks = policy_from_json(profile.policy).model.blocks
    if len(profile.patch_tokens) != blocks:
        raise MeasurementError(
            f"patch_tokens has {len(profile.patch_tokens)} counts; the policy's model has "
            f"{blocks} blocks"
        )
    split = (*profile.stamped, *profile.floor)
    scopes: list[PhaseTime | Operator | Work] = [*split, *profile.operators, *profile.work]
    for scope in scopes:
        if scope.block is not None and scope.block >= blocks:
            raise MeasurementError(f"block {scope.block!r} is none of {blocks}")
    passes, traced = len(profile.plain.passes_ms), len(profile.traced_ms)
    every: list[PhaseTime | Latency] = [*split, profile.floor_plain or profile.plain]
    if any(len(each.passes_ms) != passes for each in every):
        raise MeasurementError("a profile must have passes, as many for every phase")
    if any(not traced or len(one.passes_ms) != traced for one in profile.operators):
        raise MeasurementError("operators must have passes, as many as were traced")
    if wrong := [ms for one in split for ms in one.passes_ms if ms < _least_ms(profile, one)]:
        raise MeasurementError(f"a profile holds {wrong[0]!r} ms; a phase takes no time below 0")
    if not all(ms > 0 for ms in profile.stamped_ms):
        raise MeasurementError("a profile has a pass whose phases take no time")
    return profile


def _least_ms(profile: Profile, part: PhaseTime) -> float:
    """Below 0 only by the price that was taken off: noise may have made it less in one pass."""
    return -part.borders * profile.border_ms - ROUNDED_MS if part.borders else 0.0


def _rounded(item: dict[str, Any]) -> dict[str, Any]:
    """Times to the nanosecond: clocks tell no more, and files stay small."""
    if "passes_ms" in item:
        item["passes_ms"] = [round(ms, DIGITS) for ms in item["passes_ms"]]
    return item
