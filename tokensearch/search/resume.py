"""What an earlier process left in a run folder, and whether this one may go on with it."""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tokensearch.data.splits import PURPOSES, Purpose
from tokensearch.errors import RunError
from tokensearch.files import no_follow, writing
from tokensearch.records.measurements import Trial, trial_from_json
from tokensearch.records.run_folder import RunFolder
from tokensearch.redaction import redact


@contextmanager
def lock_folder(folder: RunFolder) -> Iterator[None]:
    """Hold the folder against other processes; a killed one lets go of it."""
    with writing(folder.lock):
        lock = no_follow(str(folder.lock), os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"run folder {folder.path} is in use by another process") from error
        yield
    finally:
        os.close(lock)


def read_trials(folder: RunFolder) -> tuple[Trial, ...]:
    """Return the trials of earlier processes, a torn last line cut off; RunError if damaged."""
    folder.mend_trials()
    return tuple(trial_from_json(line) for line in folder.read_trials())


# What is said of a run whose model has another digest; see `evaluate.identity`.
OTHERS = {
    "weights": "of other weights than those of now",
    "architecture": "of a model that was put together otherwise (modules, their settings, hooks)",
    "code": "of a model whose code was another",
}
WAYS_ON = "--fresh moves it to a folder within and begins anew, --out names another folder"


def check_same_run(
    before: Mapping[str, Any], now: Mapping[str, Any], folder: RunFolder
) -> tuple[str, ...]:
    """Refuse to go on in the folder of another run: its figures would not belong together.

    Returns:
        What the user should know: images of `select` or `report` that are others than before, on
        which nothing was searched yet.

    Raises:
        RunError: Settings, model, cell or images of `search` are others.
    """
    _check_equal(before, now, "settings", folder)
    _check_identity(before, now, folder)
    for part in ("model", "cell"):
        _check_equal(before, now, part, folder)
    for name in ("name", "labelled"):
        _check_one(before.get("data"), now["data"], f"data.{name}", folder)
    changed = {purpose: _changed(before, now, purpose, folder) for purpose in PURPOSES}
    if changed["search"]:
        raise RunError(
            f"{_said(changed, 'search', now)} the run in {folder.path} searched on; {WAYS_ON}"
        )
    return tuple(
        f"{_said(changed, purpose, now)} the run in {folder.path} knew; what is chosen and quoted "
        f"goes by those of now"
        for purpose in PURPOSES
        if changed[purpose]
    )


def digest_by_name(images: Sequence[str]) -> str:
    """Return what run.json says of the images of a split: the beginning of each one's name."""
    return " ".join(image[:8] for image in images)


def _check_equal(
    before: Mapping[str, Any], now: Mapping[str, Any], part: str, folder: RunFolder
) -> None:
    for name in now[part]:
        _check_one(before.get(part), now[part], f"{part}.{name}", folder)


def _check_one(before: Any, now: Mapping[str, Any], called: str, folder: RunFolder) -> None:
    name = called.rpartition(".")[2]
    written = json.loads(json.dumps(redact(now[name])))
    if not isinstance(before, dict) or name not in before:
        raise RunError(f"{folder.run} lacks {called}")
    if before[name] != written:
        raise RunError(
            f"run folder {folder.path} holds a run with {called} {before[name]!r:.80}, "
            f"this one has {written!r:.80}; name another folder with --out"
        )


def _check_identity(before: Mapping[str, Any], now: Mapping[str, Any], folder: RunFolder) -> None:
    known = before.get("identity")
    if not isinstance(known, dict):
        raise RunError(
            f"run folder {folder.path} holds a run of an earlier tokensearch, which did not write "
            f"down by what code and on which images; {WAYS_ON}"
        )
    for part, words in OTHERS.items():
        if known.get(part) != now["identity"][part]:
            raise RunError(f"run folder {folder.path} holds a run {words}; {WAYS_ON}")
    if known.get("versions") != now["identity"]["versions"]:
        raise RunError(
            f"run folder {folder.path} holds a run made with {known.get('versions')!s:.80}, here "
            f"is {now['identity']['versions']}; {WAYS_ON}"
        )


def _changed(
    before: Mapping[str, Any], now: Mapping[str, Any], purpose: Purpose, folder: RunFolder
) -> int:
    """How many images of a split are others than before."""
    here = now["data"]["splits"][purpose]
    try:
        there = before["data"]["splits"][purpose]
        known = str(there["contents"]).split()
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder.run} lacks the contents of data.splits.{purpose}") from error
    _check_one(there, here, f"data.splits.{purpose}.images", folder)
    shown = here["contents"].split()
    others = sum((Counter(shown) - Counter(known)).values())
    return others or int(shown != known)  # in another order, races would look at others first


def _said(changed: Mapping[Purpose, int], purpose: Purpose, now: Mapping[str, Any]) -> str:
    whole = now["data"]["splits"][purpose]["images"]
    return f"{changed[purpose]} of the {whole} images of the {purpose} split are others than those"
