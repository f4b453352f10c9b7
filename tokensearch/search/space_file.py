"""Search spaces as commented TOML files, those that ship with the package among them."""

import hashlib
import tomllib
from collections.abc import Callable, Collection, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from tokensearch.errors import SpaceError
from tokensearch.policy.steps import MATCHES, RESTS, SCORES
from tokensearch.search.encoding import Encoding
from tokensearch.search.knots import Knots
from tokensearch.search.per_block import PerBlock
from tokensearch.search.slots import Sites
from tokensearch.search.space import Space


def load_space(source: str | Path) -> Space:
    """Read a search space: a file, or the name of one that ships with the package.

    Raises:
        SpaceError: It cannot be read, or says something that is not allowed.
    """
    path = Path(source)
    if not path.suffix and not path.is_file():
        path = shipped(str(source))
    try:
        text = path.read_text(encoding="utf-8")
        return _space(tomllib.loads(text), digest=_digest(text))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpaceError(f"search space {path} cannot be read: {reason}") from error
    except SpaceError as error:
        error.add_note(f"in {path}")
        raise


def shipped(name: str) -> Path:
    """Path of a search space that ships with the package; SpaceError with the known names."""
    folder = Path(str(resources.files("tokensearch") / "search_spaces"))
    if not folder.is_dir():  # an editable install: the files stand beside the package
        folder = Path(__file__).parents[2] / "search_spaces"
    known = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in known:
        raise SpaceError(f"search space {name!r} is unknown; known are {', '.join(known)}")
    return folder / f"{name}.toml"


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


_OPS = {
    "per_block": ("keep", "prune", "pool", "prune_pool"),
    "sites": ("prune", "pool"),
    "knots": ("prune", "pool"),
}
_OWN = {"per_block": None, "sites": "slots", "knots": "knots"}  # what else stands in [steps]
# A grid leaves a quarter of a whole grid or nothing, so there is no share to search.
_FREE_MATCHES = tuple(match for match in MATCHES if match != "grid")

_Check = Callable[[Any], bool]
_Field = tuple[str, _Check]  # what a value must be, in words and as a check


def _list_of(*allowed: object) -> _Field:
    shown = ", ".join(str(item).lower() if item in {True, False} else str(item) for item in allowed)
    return f"a list of {shown}", lambda value: _each(value, lambda item: _is_one_of(item, allowed))


def _each(value: Any, allowed: _Check) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(allowed(item) for item in value)


def _is_one_of(item: object, allowed: Collection[object]) -> bool:
    return any(type(item) is type(one) and item == one for one in allowed)


_INTEGER: _Field = ("an integer", lambda value: type(value) is int)
_COUNT: _Field = ("an integer above 0", lambda value: type(value) is int and value > 0)
_SHARES: _Field = (
    "a list of shares above 0 and below 1",
    lambda value: _each(value, lambda item: isinstance(item, float) and 0 < item < 1),
)


def _fields(encoding: str) -> dict[str, dict[str, _Field]]:
    """What stands in a file of this encoding, section by section."""
    own = _OWN[encoding]
    return {
        "blocks": {"first": _INTEGER, "last": _INTEGER, "every": _COUNT},
        "steps": {
            **({} if own is None else {own: _COUNT}),
            "ops": _list_of(*_OPS[encoding]),
            "left": _SHARES,
            "by": _COUNT,
            "score": _list_of(*SCORES),
            "match": _list_of(*_FREE_MATCHES),
            "rest": _list_of(*RESTS),
        },
        "whole": {
            "proportional_attention": _list_of(True, False),
            "last_block": _list_of("full", "prefix_only"),
        },
    }


def _space(document: Mapping[str, Any], *, digest: str) -> Space:
    _check_whole(document)
    values: dict[str, Any] = {}
    for section, fields in _fields(document["encoding"]).items():
        table = document.get(section)
        if not isinstance(table, dict) or table.keys() != fields.keys():
            raise SpaceError(f"section {section!r} must hold exactly {', '.join(fields)}")
        for name, (wanted, allowed) in fields.items():
            if not allowed(table[name]):
                raise SpaceError(f"{section}.{name} is {table[name]!r}; it must be {wanted}")
            values[name] = table[name]
    values = {name: _without_repeats(value) for name, value in values.items()}
    encoding = _encoding(document["encoding"], values)
    stride = values.pop("every")
    return Space(name=document["name"], encoding=encoding, stride=stride, digest=digest, **values)


def _check_whole(document: Mapping[str, Any]) -> None:
    """SpaceError if the file lacks a name or an encoding, or has what no space has."""
    known = ("name", "encoding", *_fields("per_block"))
    unknown = document.keys() - {*known}
    if unknown or not isinstance(document.get("name"), str):
        what = f"has the unknown entry {min(unknown)!r}" if unknown else "has no name"
        raise SpaceError(f"the search space {what}; it holds {', '.join(known)}")
    if not _is_one_of(document.get("encoding"), _OPS):
        raise SpaceError(
            f"encoding is {document.get('encoding')!r}; it must be one of {', '.join(_OPS)}"
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
            return Sites(ops, left, values.pop("slots"))
        case "knots":
            return Knots(ops, left, values.pop("knots"))
        case _:
            return PerBlock(ops, left)
