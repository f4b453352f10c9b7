"""Files that commands leave: whole, or an error in a sentence."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokensearch.errors import RunError
from tokensearch.files import make_folder, write_whole
from tokensearch.policy.file import to_text


def check_file(path: Path) -> None:
    """See whether a file could be written, and leave nothing behind; RunError if not."""
    there = next(one for one in path.absolute().parents if one.exists())
    reason = None
    if path.is_dir():
        reason = "it is a folder"
    elif not there.is_dir():
        reason = f"{there} is a file"
    elif not os.access(there, os.W_OK):
        reason = "Permission denied"
    if reason is not None:
        raise RunError(f"{path} cannot be written: {reason}")


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document whole; RunError where it cannot be written."""
    make_folder(path.parent)
    write_whole(path, to_text(document))
