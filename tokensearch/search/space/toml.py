"""Search spaces as commented TOML files, those that ship with the package among them."""

import hashlib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from tokensearch.documents import (
    FLAG,
    NAME,
    Check,
    bytes_of,
    check_bounds,
    choice,
    fields,
    integer,
    items,
    leaf,
    validate,
)
from tokensearch.errors import SpaceError
from tokensearch.policy import BOUNDS
from tokensearch.policy.steps import MATCHES, RESTS, SCORES
from tokensearch.search.space.encoding import Encoding
from tokensearch.search.space.per_block import PerBlockEncoding
from tokensearch.search.space.slots import SlotEncoding
from tokensearch.search.space.space import SearchSpace

# Ours have 2 kB, most of it comments. tomllib takes the square of the length of a dotted key.
MAX_BYTES = 2**14
MAX_CHOICES = 1000  # of one list; a share for every token of most models


def load_space(source: str | Path) -> SearchSpace:
    """Read a search space: a file, or the name of one that ships with the package.

    Raises:
        SpaceError: It cannot be read, or says something that is not allowed.
    """
    path = _path_of(source)
    try:
        return parse_space(read_space(source))
    except SpaceError as error:
        error.add_note(f"in {path}")
        raise


def read_space(source: str | Path) -> bytes:
    """Return the bytes of a search space; SpaceError if they cannot be read."""
    path = _path_of(source)
    return bytes_of(path, what="a search space", error=SpaceError, most=MAX_BYTES)


def _path_of(source: str | Path) -> Path:
    path = Path(source)
    return path if path.suffix or path.is_file() else shipped_path(str(source))


def parse_space(data: bytes) -> SearchSpace:
    """Return the search space of a file's bytes; SpaceError if they say what is not allowed."""
    try:
        text = data.decode("utf-8")
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpaceError(f"the search space is not TOML: {error}") from error
    try:
        check_bounds(document)
    except ValueError as error:
        raise SpaceError(f"the search space {error}") from error
    return _space(document, digest=_digest(text))


def shipped_path(name: str) -> Path:
    """Path of a search space that ships with the package; SpaceError with the known names."""
    folder = Path(str(resources.files("tokensearch") / "search_spaces"))
    if not folder.is_dir():  # an editable install: the files stand beside the package
        folder = Path(__file__).parents[3] / "search_spaces"
    known = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in known:
        raise SpaceError(f"search space {name!r} is unknown; known are {', '.join(known)}")
    return folder / f"{name}.toml"


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


_OPS = {
    "per_block": ("keep", "prune", "pool", "prune_pool"),
    "sites": ("prune", "pool"),
}
_OWN = {"per_block": None, "sites": "slots"}  # what else stands in [steps]
# A grid leaves a quarter of a whole grid or nothing, so there is no share to search.
_FREE_MATCHES = tuple(match for match in MATCHES if match != "grid")

_BLOCK = integer(-BOUNDS["blocks"][1], BOUNDS["blocks"][1])
_COUNT = integer(1, BOUNDS["blocks"][1])
_TOKENS = integer(1, BOUNDS["patch_tokens"][1])
_SHARE = leaf("a share above 0 and below 1", lambda value: type(value) is float and 0 < value < 1)


def _choices(wanted: Check) -> Check:
    return items(wanted, least=1, most=MAX_CHOICES)


def _described(encoding: str) -> dict[str, dict[str, Check]]:
    """What stands in a file of this encoding, section by section."""
    own = _OWN[encoding]
    return {
        "blocks": {"first": _BLOCK, "last": _BLOCK, "every": _COUNT},
        "steps": {
            **({} if own is None else {own: _COUNT}),
            "ops": _choices(choice(*_OPS[encoding])),
            "left": _choices(_SHARE),
            "by": _TOKENS,
            "score": _choices(choice(*SCORES)),
            "match": _choices(choice(*_FREE_MATCHES)),
            "rest": _choices(choice(*RESTS)),
        },
        "whole": {
            "proportional_attention": _choices(FLAG),
            "last_block": _choices(choice("full", "prefix_only")),
        },
    }


def _space(document: dict[str, Any], *, digest: str) -> SearchSpace:
    validate(document, fields({"encoding": choice(*_OPS)}), "the search space", SpaceError)
    sections = _described(document["encoding"])
    wanted = {name: fields(section, closed=True) for name, section in sections.items()}
    whole = fields({"name": NAME, "encoding": NAME, **wanted}, closed=True)
    validate(document, whole, "the search space", SpaceError)
    values = {
        name: _without_repeats(document[section][name])
        for section, names in sections.items()
        for name in names
    }
    encoding = _encoding(document["encoding"], values)
    stride = values.pop("every")
    return SearchSpace(
        name=document["name"], encoding=encoding, stride=stride, digest=digest, **values
    )


def _without_repeats(value: Any) -> Any:
    """Return a list as a tuple without repeats, numbers ascending; anything else as it is."""
    if not isinstance(value, list):
        return value
    distinct = dict.fromkeys(value)
    return tuple(sorted(distinct) if isinstance(value[0], float) else distinct)


def _encoding(name: str, values: dict[str, Any]) -> Encoding:
    """Take out of `values` what is the encoding's."""
    ops, left = values.pop("ops"), values.pop("left")
    match name:
        case "sites":
            return SlotEncoding(ops, left, values.pop("slots"))
        case _:
            return PerBlockEncoding(ops, left)
