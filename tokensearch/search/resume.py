"""What an earlier process left in a run folder, and whether this one may go on with it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from typing import TypeVar

from tokensearch.data.splits import PURPOSES, Purpose
from tokensearch.errors import RunError
from tokensearch.policy import ModelSpec
from tokensearch.records.measurements import Cell, Trial, to_json
from tokensearch.records.run_folder import WAYS_ON, RunFolder
from tokensearch.records.run_result import ModelIdentity, RunDocument, SplitInfo
from tokensearch.records.run_settings import SearchSettings
from tokensearch.redaction import redact

_Record = TypeVar("_Record", SearchSettings, ModelSpec, Cell)


def read_trials(folder: RunFolder) -> tuple[Trial, ...]:
    """Return the trials of earlier processes, a torn last line cut off; RunError if damaged."""
    folder.mend_trials()
    return folder.read_trials()


# What is said of a run whose model has another digest; see `accuracy.model_identity`.
OTHERS = {
    "weights": "of other weights than those of now",
    "architecture": "of a model that was put together otherwise (modules, their settings, hooks)",
    "code": "of a model whose code was another",
}


def check_same_run(before: RunDocument, now: RunDocument, folder: RunFolder) -> tuple[str, ...]:
    """Refuse to go on in the folder of another run: its figures would not belong together.

    before  as read from the folder
    now     as it would be written there, but for what is hidden then

    Returns:
        What the user should know: images of `select` or `report` that are others than before, on
        which nothing was searched yet.

    Raises:
        RunError: Settings, model, cell or images of `search` are others.
    """
    now = RunDocument.from_json(redact(now.to_json()))
    _check_equal(before.settings, now.settings, "settings", folder)
    _check_identity(before.identity, now.identity, folder)
    _check_equal(before.model, now.model, "model", folder)
    _check_equal(before.cell, now.cell, "cell", folder)
    folder.refuse_other("data.name", before.data.name, now.data.name)
    folder.refuse_other("data.labelled", before.data.labelled, now.data.labelled)
    splits = {purpose: now.data.splits[purpose] for purpose in PURPOSES}
    changed = {
        purpose: _count_changed(before.data.splits.get(purpose), split, purpose, folder)
        for purpose, split in splits.items()
    }
    lines = {
        purpose: f"{count} of the {splits[purpose].images} images of the {purpose} split are "
        f"others than those the run in {folder.path}"
        for purpose, count in changed.items()
        if count
    }
    if "search" in lines:
        raise RunError(f"{lines['search']} searched on; {WAYS_ON}")
    return tuple(
        f"{line} knew; what is chosen and quoted goes by those of now" for line in lines.values()
    )


def digest_by_name(images: Sequence[str]) -> str:
    """Return what run.json says of the images of a split: the beginning of each one's name."""
    return " ".join(image[:8] for image in images)


def _check_equal(before: _Record, now: _Record, part: str, folder: RunFolder) -> None:
    """Compare two records field by field."""
    for item in fields(now):
        was, is_now = (to_json(getattr(record, item.name)) for record in (before, now))
        folder.refuse_other(f"{part}.{item.name}", was, is_now)


def _check_identity(
    before: ModelIdentity | None, now: ModelIdentity | None, folder: RunFolder
) -> None:
    assert now is not None  # every search takes it
    if before is None:
        raise RunError(
            f"run folder {folder.path} holds a run of an earlier tokensearch, which did not write "
            f"down by what code and on which images; {WAYS_ON}"
        )
    for part, words in OTHERS.items():
        if getattr(before, part) != getattr(now, part):
            raise RunError(f"run folder {folder.path} holds a run {words}; {WAYS_ON}")
    if before.versions != now.versions:
        raise RunError(
            f"run folder {folder.path} holds a run made with {before.versions:.80}, here is "
            f"{now.versions}; {WAYS_ON}"
        )


def _count_changed(
    before: SplitInfo | None, now: SplitInfo, purpose: Purpose, folder: RunFolder
) -> int:
    """How many images of a split are others than before."""
    if before is None or before.contents is None or now.contents is None:
        raise RunError(f"{folder.run} lacks the contents of data.splits.{purpose}")
    folder.refuse_other(f"data.splits.{purpose}.images", before.images, now.images)
    known, shown = before.contents.split(), now.contents.split()
    others = sum((Counter(shown) - Counter(known)).values())
    return others or int(shown != known)  # in another order, races would look at others first
