"""What became of the patches of an image under a policy, block by block, and the file of it.

`patches.json` in a run folder holds this for a few images of the run, with the images themselves.
"""

import base64
import binascii
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokensearch.documents import (
    MAX_TEXT,
    NAME,
    fields,
    integer,
    items,
    read_object,
    text,
    validate,
)
from tokensearch.errors import RunError
from tokensearch.files import write_whole
from tokensearch.policy import BOUNDS

FORMAT, VERSION = "tokensearch.patches", 1
DISCARDED = -1
MOST_IMAGES = 16

_PATCHES = BOUNDS["patch_tokens"][1]
_TRACES = fields(
    {
        "schedule_hash": NAME,
        "images": items(
            fields(
                {
                    "name": NAME,
                    "jpeg": text(MAX_TEXT),
                    "columns": integer(1, _PATCHES),
                    "tokens": items(
                        items(integer(DISCARDED, _PATCHES), least=1, most=_PATCHES),
                        least=1,
                        most=BOUNDS["blocks"][1],
                    ),
                }
            ),
            most=MOST_IMAGES,
        ),
    }
)


@dataclass(frozen=True, slots=True)
class BlockChange:
    """What one block did to the tokens of an image."""

    block: int
    left: int  # tokens that hold patches
    dropped: int  # tokens that were discarded, with the patches that they held
    merged: int  # tokens that went into others


@dataclass(frozen=True, slots=True)
class PatchTrace:
    """Which token holds each patch of one image, behind every block."""

    columns: int  # of the grid of patches, which are counted row by row
    tokens: tuple[tuple[int, ...], ...]  # by block and patch; -1 where it was discarded

    @property
    def rows(self) -> int:
        """Rows of the grid."""
        return len(self.tokens[0]) // self.columns

    def before(self, block: int) -> tuple[int, ...]:
        """Return the token that holds each patch where a block begins."""
        return self.tokens[block - 1] if block else tuple(range(len(self.tokens[0])))

    def change(self, block: int) -> BlockChange:
        """Count what a block did."""
        tokens, after = _holders(self.before(block)), self.tokens[block]
        kept = {token for token, patch in tokens.items() if after[patch] != DISCARDED}
        left = len(_holders(after))
        return BlockChange(block, left, len(tokens) - len(kept), len(kept) - left)

    @property
    def changes(self) -> tuple[BlockChange, ...]:
        """What was done by each block that did anything to patches that are read later.

        A last block that computes prefix tokens alone reads no patch: that is no choice of patches.
        """
        every = (self.change(block) for block in range(len(self.tokens)))
        return tuple(one for one in every if one.left and (one.dropped or one.merged))

    def sizes(self, block: int) -> Counter[int]:
        """Return how many patches each token holds behind a block."""
        return Counter(token for token in self.tokens[block] if token != DISCARDED)


@dataclass(frozen=True, slots=True)
class TracedImage:
    """An image as the model was given it, and where its patches went."""

    name: str
    jpeg: bytes
    trace: PatchTrace


@dataclass(frozen=True, slots=True)
class PatchTraces:
    """Some images under one policy."""

    schedule_hash: str  # of the policy
    images: tuple[TracedImage, ...]


def write_traces(traces: PatchTraces, path: Path) -> None:
    """Write patches.json whole; RunError where it cannot be written."""
    images = [
        {
            "name": image.name,
            "columns": image.trace.columns,
            "tokens": image.trace.tokens,
            "jpeg": base64.b64encode(image.jpeg).decode(),
        }
        for image in traces.images
    ]
    document = {
        "format": FORMAT,
        "version": VERSION,
        "schedule_hash": traces.schedule_hash,
        "images": images,
    }
    write_whole(path, json.dumps(document, allow_nan=False) + "\n")


def read_traces(path: Path) -> PatchTraces:
    """Read patches.json; RunError where it is damaged or of another format."""
    try:
        return _from_json(read_object(path, what="a trace of patches", error=RunError))
    except RunError as error:
        error.add_note(f"in {path}")
        raise


def _from_json(document: Mapping[str, Any]) -> PatchTraces:
    if document.get("format") != FORMAT or document.get("version") != VERSION:
        raise RunError(
            f"format is {document.get('format')!r:.60}, version {document.get('version')!r:.60}; "
            f"a trace of patches has {FORMAT!r}, version {VERSION}"
        )
    validate(document, _TRACES, "the trace of patches", RunError)
    images = tuple(_read_image(image) for image in document["images"])
    return PatchTraces(document["schedule_hash"], images)


def _read_image(image: Mapping[str, Any]) -> TracedImage:
    tokens, columns = tuple(map(tuple, image["tokens"])), image["columns"]
    if any(len(block) != len(tokens[0]) for block in tokens) or len(tokens[0]) % columns:
        raise RunError(f"the patches of image {image['name']!r:.60} form no grid")
    try:
        jpeg = base64.b64decode(image["jpeg"], validate=True)
    except binascii.Error as error:
        raise RunError(f"image {image['name']!r:.60} is no base64") from error
    return TracedImage(image["name"], jpeg, PatchTrace(columns, tokens))


def _holders(tokens: tuple[int, ...]) -> dict[int, int]:
    """Return the tokens that hold patches, each with one of its patches."""
    return {token: patch for patch, token in enumerate(tokens) if token != DISCARDED}
