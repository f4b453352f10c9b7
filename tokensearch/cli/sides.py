"""What the two arguments of `tokensearch diff` may be, told apart by what they hold."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokensearch.chrome import ChromeTrace, read_trace
from tokensearch.errors import MeasurementError, RunError
from tokensearch.policy import Policy, is_file
from tokensearch.policy.file import FORMAT as POLICY_FORMAT
from tokensearch.policy.file import policy_from_json
from tokensearch.profiles import FORMAT as PROFILE_FORMAT
from tokensearch.profiles import Profile, profile_from_json
from tokensearch.run_folder import RunFolder

# Ours are a few megabytes at most; what is larger can only be a trace, which has its own limit.
LARGEST_OWN = 64 * 2**20

PROFILE_FILE, LEDGER_FILE = "profile.json", "ledger.json"
Side = Policy | Profile | ChromeTrace | RunFolder | str  # a string is the name of a preset


def read_side(name: str) -> Side:
    """Read what `name` stands for: a file, the folder of a run or a profile, or a preset's name.

    Raises:
        MeasurementError: A file is neither policy, profile nor trace, or is damaged.
        RunError: A folder is neither of a run nor of a profile.
        PolicyError: A policy file is damaged.
    """
    path = Path(name)
    if path.is_dir():
        return _folder(path)
    return _file(path) if is_file(name) or path.suffix == ".gz" else name


def settled(sides: Sequence[Side]) -> list[Policy | Profile | str]:
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


def model_of(sides: Sequence[Policy | Profile | str]) -> str | None:
    """Return the model that the first side to name one was made for."""
    for side in sides:
        if isinstance(side, Policy):
            return side.model.name
        if isinstance(side, Profile):
            return side.model
    return None


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
    document = _own(path)
    if document is None:
        return read_trace(path)
    try:
        if document["format"] == PROFILE_FORMAT:
            return profile_from_json(document)
        return policy_from_json(document)
    except ValueError as error:
        error.add_note(f"in {path}")
        raise


def _own(path: Path) -> dict[str, Any] | None:
    """Return the document of a file in one of our own formats, None where it is in another's."""
    try:
        if path.stat().st_size > LARGEST_OWN:
            return None
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise MeasurementError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError):
        return None
    own = isinstance(document, dict) and document.get("format") in (PROFILE_FORMAT, POLICY_FORMAT)
    return document if own else None


def _profile(path: Path) -> Profile:
    found = _file(path)
    if not isinstance(found, Profile):
        raise MeasurementError(f"{path} is no profile")
    return found


def _kept(folder: RunFolder) -> Profile:
    path = folder.profiles / "answer.json"
    if not path.is_file():
        raise RunError(f"{folder.path} has no profile of an answer, so there is nothing to compare")
    return _profile(path)


def _answer(folder: RunFolder) -> Policy:
    found = _file(folder.policy) if folder.policy.is_file() else None
    if not isinstance(found, Policy):
        raise RunError(f"{folder.path} has no policy.json: no policy meets that run's target")
    return found
