"""What the two arguments of `tokensearch diff` may be, told apart by what they hold."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokensearch.chrome import ChromeTrace, read_trace
from tokensearch.documents import bytes_of, parse_object
from tokensearch.errors import MeasurementError, PolicyError, RunError
from tokensearch.policy import RANDOM, Policy, find, is_file
from tokensearch.policy.file import FORMAT as POLICY_FORMAT
from tokensearch.policy.file import policy_from_json
from tokensearch.records.profile import Profile
from tokensearch.records.profile_file import FORMAT as PROFILE_FORMAT
from tokensearch.records.profile_file import MAX_PROFILE_BYTES, profile_from_json
from tokensearch.records.run_folder import RunFolder

if TYPE_CHECKING:
    from tokensearch.models import ModelName

OURS = "tokensearch."  # begins the name of every format of ours

ACCEPTED = (
    "accepted are names of presets, policy files, folders of runs, profiles (folders or files) and "
    "Chrome traces"
)
PROFILE_FILE, LEDGER_FILE = "profile.json", "ledger.json"
Operand = Policy | Profile | ChromeTrace | RunFolder | str  # a string is the name of a preset


def read_operand(name: str) -> Operand:
    """Read what `name` stands for: a file, the folder of a run or a profile, or a preset's name.

    Raises:
        MeasurementError: A file is neither policy, profile nor trace, or is damaged.
        RunError: A folder is neither of a run nor of a profile.
        PolicyError: A policy file is damaged, or no preset is called that.
    """
    path = Path(name)
    if path.is_dir():
        return _folder(path)
    if is_file(name) or path.suffix == ".gz":
        return _file(path)
    try:
        return read_preset(name)
    except PolicyError as error:  # or a path that was mistyped
        error.add_note(ACCEPTED)
        raise


def is_stored(side: Operand) -> bool:
    """Whether it was timed before, so that options of a cell mean nothing to it."""
    return isinstance(side, Profile | ChromeTrace)


def resolve_run_folders(sides: Sequence[Operand]) -> list[Policy | Profile | str]:
    """Say of every run folder what it stands for: its answer, or the profile that was kept of it.

    Beside a policy or a preset the answer, which is then profiled in turn with it; else the
    profile.
    """
    on_the_spot = any(isinstance(side, Policy | str) for side in sides)
    kept: list[Policy | Profile | str] = []
    for side in sides:
        if isinstance(side, RunFolder):
            kept.append(_answer(side) if on_the_spot else _kept(side))
        else:
            assert not isinstance(side, ChromeTrace)
            kept.append(side)
    return kept


def model_of_operands(sides: Sequence[Policy | Profile | str]) -> "ModelName | None":
    """Return the model that the first side to name one was made for.

    Raises:
        ModelError: It is one that only the user may name.
    """
    from tokensearch.models import resolve_stored

    for side in sides:
        if isinstance(side, Policy):
            return resolve_stored(side.model.name, what="the policy")
        if isinstance(side, Profile):
            return resolve_stored(side.model, what="the profile")
    return None


def read_preset(name: str) -> str:
    """Return the name of a preset; PolicyError with the nearest if there is none."""
    find(name.removeprefix(RANDOM))
    return name


def _folder(path: Path) -> Profile | RunFolder:
    if (path / PROFILE_FILE).is_file():
        return _profile(path / PROFILE_FILE)
    if (path / LEDGER_FILE).is_file():
        raise RunError(f"{path} is of a diff; give its folder baseline or candidate")
    folder = RunFolder(path)
    if not folder.run.is_file():
        raise RunError(f"{path} holds neither {PROFILE_FILE} nor run.json: no profile and no run")
    return folder


def _file(path: Path) -> Policy | Profile | ChromeTrace:
    try:
        document = _own(path)
        ours = None if document is None else _of(document, path.parent)
    except ValueError as error:
        error.add_note(f"in {path}")
        raise
    return _trace(path) if ours is None else ours


def _of(document: dict[str, Any], folder: Path) -> Policy | Profile:
    if document["format"] == PROFILE_FORMAT:
        return profile_from_json(document)
    if document["format"] == POLICY_FORMAT:
        return policy_from_json(document, folder)
    raise MeasurementError(f"the file has format {document['format']!r:.60}; {ACCEPTED}")


def _trace(path: Path) -> ChromeTrace:
    try:
        return read_trace(path)
    except MeasurementError as error:
        error.add_note(ACCEPTED)
        raise


def _own(path: Path) -> dict[str, Any] | None:
    """Return the document of a file in a format of ours, None where it is in another's.

    What is larger than any of ours can only be a trace, which has its own limit.
    """
    try:
        large = path.stat().st_size > MAX_PROFILE_BYTES
    except OSError as error:
        raise MeasurementError(f"the file cannot be read: {error.strerror}") from error
    if large:
        return None
    data = bytes_of(path, what="what is compared", error=MeasurementError, most=MAX_PROFILE_BYTES)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not str(document.get("format")).startswith(OURS):
        return None
    return parse_object(data, error=MeasurementError)


def _profile(path: Path) -> Profile:
    document = _file(path)
    if not isinstance(document, Profile):
        raise MeasurementError(f"{path} is no profile")
    return document


def _kept(folder: RunFolder) -> Profile:
    path = folder.profiles / "answer.json"
    if not path.is_file():
        raise RunError(f"{folder.path} has no profile of an answer, so there is nothing to compare")
    return _profile(path)


def _answer(folder: RunFolder) -> Policy:
    policy = _file(folder.policy) if folder.policy.is_file() else None
    if not isinstance(policy, Policy):
        raise RunError(f"{folder.path} has no policy.json: no policy meets that run's target")
    return policy
