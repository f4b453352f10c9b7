"""`profile.json`: a profile as a document, read strictly."""

from collections.abc import Mapping
from dataclasses import asdict, astuple
from dataclasses import fields as dataclass_fields
from math import inf
from typing import Any

from tokensearch.errors import MeasurementError
from tokensearch.policy.file import policy_from_json
from tokensearch.profiles.places import PHASES
from tokensearch.profiles.record import Ceilings, Operator, PhaseTime, Profile, Work
from tokensearch.records import Latency, cell_from_json, conditions_from_json, to_json

FORMAT, VERSION = "tokensearch.profile", 1
DIGITS, ROUNDED_MS = 6, 1e-6  # of a millisecond in the file


def profile_to_json(profile: Profile) -> dict[str, Any]:
    """Return a profile as `profile.json` holds it, with the figures readers look for first."""
    fields = {item.name: getattr(profile, item.name) for item in dataclass_fields(profile)}
    parts = {
        name: [_rounded(asdict(item)) for item in fields[name]]
        for name in ("stamped", "floor", "operators", "work")
    }
    sums = {phase: profile.phase_ms(phase) for phase in PHASES}
    return {
        "format": FORMAT,
        "version": VERSION,
        **fields,
        "pass_ms": profile.pass_ms,
        "phases_ms": {phase: ms for phase, ms in sums.items() if ms},
        "cell": to_json(profile.cell),
        "plain": to_json(profile.plain),
        "ceilings": None if profile.ceilings is None else asdict(profile.ceilings),
        "conditions": None if profile.conditions is None else asdict(profile.conditions),
        **parts,
    }


def profile_from_json(document: Mapping[str, Any]) -> Profile:
    """Return the profile that `profile_to_json` wrote; MeasurementError where it cannot be."""
    check_format(document, "a profile", FORMAT, VERSION)
    try:
        return _checked(_profile(document))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, MeasurementError):
            raise
        raise MeasurementError(f"not a whole profile: {error}") from error


def check_format(document: Mapping[str, Any], what: str, name: str, version: int) -> None:
    """Refuse a document of another format or version, by what it should be."""
    if document.get("format") != name or document.get("version") != version:
        raise MeasurementError(
            f"format is {document.get('format')!r:.60}, version {document.get('version')!r:.60}; "
            f"{what} has {name!r}, version {version}"
        )


def _checked(profile: Profile) -> Profile:
    """Return a profile on whose figures everything can be computed that is computed of one."""
    blocks = policy_from_json(profile.policy).model.blocks
    if len(profile.patch_tokens) != blocks:
        raise MeasurementError(
            f"patch_tokens has {len(profile.patch_tokens)} counts; the policy's model has "
            f"{blocks} blocks"
        )
    split = (*profile.stamped, *profile.floor)
    known = {None, *range(blocks)}
    places: list[PhaseTime | Operator | Work] = [*split, *profile.operators, *profile.work]
    for place in places:
        if place.block not in known:
            raise MeasurementError(f"block {place.block!r} is none of {blocks}")
    passes, traced = len(profile.plain.passes_ms), len(profile.traced_ms)
    if not passes or not profile.stamped or any(len(one.passes_ms) != passes for one in split):
        raise MeasurementError("a profile must have passes, as many for every phase")
    if any(not traced or len(one.passes_ms) != traced for one in profile.operators):
        raise MeasurementError("operators must have passes, as many as were traced")
    _check_figures(profile)
    return profile


def _check_figures(profile: Profile) -> None:
    """Refuse what no clock and no count can have been; NaN is in no interval."""
    split = (*profile.stamped, *profile.floor)
    least = [
        profile.border_ms,
        *(one.borders for one in split),
        *(ms for one in profile.operators for ms in one.passes_ms),
        *(one.calls for one in profile.operators),
        *(figure for one in profile.work for figure in (one.flop, one.bytes)),
        profile.peak_bytes or 0,
    ]
    tops = () if profile.ceilings is None else astuple(profile.ceilings)
    above = [*profile.plain.passes_ms, *profile.traced_ms, *profile.stamped_ms, *tops]
    wrong = [one for one in least if not 0 <= one < inf]
    wrong += [one for one in above if not 0 < one < inf]
    wrong += [
        ms for one in split for ms in one.passes_ms if not _least_ms(profile, one) <= ms < inf
    ]
    if wrong:
        raise MeasurementError(
            f"a profile holds {wrong[0]!r}; times, counts and rates must be finite and not "
            "negative, those of whole passes above 0"
        )


def _least_ms(profile: Profile, part: PhaseTime) -> float:
    """Below 0 only by the price that was taken off: noise may have made it less in one pass."""
    return -part.borders * profile.border_ms - ROUNDED_MS if part.borders else 0.0


def _profile(document: Mapping[str, Any]) -> Profile:
    known = {item.name for item in dataclass_fields(Profile)}
    ceilings = document["ceilings"]
    plain = document["plain"]
    fields = {name: value for name, value in document.items() if name in known}
    return Profile(
        **{
            **fields,
            "patch_tokens": tuple(map(int, document["patch_tokens"])),
            "cell": cell_from_json(document["cell"]),
            "plain": Latency(tuple(map(float, plain["passes_ms"])), plain["warmup"]),
            "stamped": tuple(_timed(PhaseTime, item) for item in document["stamped"]),
            "floor": tuple(_timed(PhaseTime, item) for item in document["floor"]),
            "operators": tuple(_timed(Operator, item) for item in document["operators"]),
            "traced_ms": tuple(map(float, document["traced_ms"])),
            "work": tuple(Work(**item) for item in document["work"]),
            "ceilings": None if ceilings is None else Ceilings(**ceilings),
            "conditions": conditions_from_json(document["conditions"]),
        }
    )


def _timed(kind: Any, item: Mapping[str, Any]) -> Any:
    if item["phase"] not in PHASES:
        raise MeasurementError(f"phase {item['phase']!r} is none of {', '.join(PHASES)}")
    return kind(**{**item, "passes_ms": tuple(map(float, item["passes_ms"]))})


def _rounded(item: dict[str, Any]) -> dict[str, Any]:
    """Times to the nanosecond: clocks tell no more, and files stay small."""
    if "passes_ms" in item:
        item["passes_ms"] = [round(ms, DIGITS) for ms in item["passes_ms"]]
    return item
