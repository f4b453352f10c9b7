"""Damaged copies of a document: what an accident, a newer version or an enemy may write."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import reduce
from operator import getitem
from random import Random
from typing import Any

Document = dict[str, Any]
Path = tuple[Any, ...]

# Text that stands in the file as it is, where JSON's writer would refuse or escape it.
RAW = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e400",
    "9" * 5000,
    "1" + "0" * 400,
    "-0.0",
    "5e-324",
    "[" * 2000 + "]" * 2000,
    '{"a":' * 100 + "1" + "}" * 100,
    "[]" + "]",
    '"\\ud800"',
    '"\\u0000"',
    "nul",
    "1979-05-27",
)
HOSTILE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3.5,
    -0.5,
    1e-12,
    1e300,
    -1e300,
    10**7,
    2**31,
    2**53 + 1,
    10**30,
    -(10**30),
    "",
    "x",
    "x" * 5000,
    "x" * 200_000,
    "os:abort",
    "\x1b[31mred\x1b[0m\r\n",
    "\u202eevil",
    "[red]x[/red]",
    "<script>alert(1)</script>",
    "a|b`c",
    [],
    [[]],
    [None],
    [1, "a", None],
    [0] * 1000,
    {},
    {"a": {"b": [1]}},
    {"": None},
)
ENDS = (b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"}", b"]", b",", b'"', b"{}", b"\n")


def mutants(
    document: Document, count: int, seed: int, write: Callable[[Document], str] = json.dumps
) -> Iterator[bytes]:
    """Yield `count` damaged copies as `write` spells them; equal seeds give equal ones."""
    random, text, paths = Random(seed), json.dumps(document), list(_paths(document))
    for _ in range(count):
        data = _written(_changed(json.loads(text), paths, random), write, random)
        yield _torn(data, random) if random.random() < 0.15 else data


def _changed(document: Document, paths: Sequence[Path], random: Random) -> Document:
    """Change one to three places of the tree."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        *way, last = random.choice(paths)
        with suppress(
            LookupError, TypeError, AttributeError
        ):  # an earlier change took that place away
            random.choice(_CHANGES)(reduce(getitem, way, document), last, random)
    return document


def _paths(part: Any, way: Path = ()) -> Iterator[Path]:
    """Every place where something stands. Of long lists only the ends, which stand for the rest."""
    keys: list[Any] = list(part if isinstance(part, dict) else range(len(part)))
    for key in keys if isinstance(part, dict) or len(keys) < 6 else [*keys[:2], keys[-1]]:
        yield (*way, key)
        if isinstance(part[key], dict | list):
            yield from _paths(part[key], (*way, key))


def _replace(holder: Any, key: Any, random: Random) -> None:
    holder[key] = json.loads(json.dumps(random.choice(HOSTILE)))


def _replace_raw(holder: Any, key: Any, random: Random) -> None:
    holder[key] = f"@@{random.randrange(len(RAW))}@@"


def _nudge(holder: Any, key: Any, random: Random) -> None:
    """Change a number a little or by far, anything else into its neighbour's type."""
    value = holder[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        holder[key] = [value] if isinstance(value, dict) else {"value": value}
    else:
        holder[key] = random.choice(
            (value + 1, value - 1, -value, value * 10**6, value / 3, value * 1e-9, str(value))
        )


def _drop(holder: Any, key: Any, random: Random) -> None:
    del holder[key]


def _rename(holder: Any, key: Any, random: Random) -> None:
    if isinstance(holder, dict):
        holder[random.choice((f"{key}s", key.upper(), "", "\x1b[2J", f"{key}\u200b"))] = holder.pop(
            key
        )
    else:
        holder.insert(key, holder[key])


def _repeat(holder: Any, key: Any, random: Random) -> None:
    """Put a list's items in it many times over; nest anything else."""
    if isinstance(holder[key], list):
        holder[key] = holder[key] * random.choice((2, 3, 50))
    else:
        for _ in range(random.choice((1, 40))):
            holder[key] = {"again": holder[key]}


def _swap(holder: Any, key: Any, random: Random) -> None:
    """Exchange two values: right types, wrong places."""
    other = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    holder[key], holder[other] = holder[other], holder[key]


_CHANGES: tuple[Callable[[Any, Any, Random], None], ...] = (
    _replace,
    _replace,
    _replace_raw,
    _nudge,
    _nudge,
    _drop,
    _rename,
    _repeat,
    _swap,
)


def _written(document: Document, write: Callable[[Document], str], random: Random) -> bytes:
    """Write the tree; raw places as they are, now and then a key twice."""
    text = write(document)
    if '"@@' in text:
        text = re.sub(r'"@@(\d+)@@"', lambda found: RAW[int(found[1])], text)
    if random.random() < 0.03 and document:
        twice = json.dumps(random.choice(list(document)))
        text = f"{text[:-1]}, {twice}: 1}}" if text.endswith("}") else f"{twice} = 1\n{text}"
    return text.encode()


def _torn(data: bytes, random: Random) -> bytes:
    """Damage bytes: one flipped, some cut out, the end cut off, something put before or behind."""
    place = random.randrange(len(data)) if data else 0
    match random.randrange(5):
        case 0:
            flipped = bytes([data[place] ^ 1 << random.randrange(8)]) if data else b""
            return data[:place] + flipped + data[place + 1 :]
        case 1:
            return data[:place]
        case 2:
            return data[:place] + data[place + random.randrange(1, 40) :]
        case 3:
            return random.choice(ENDS) + data
        case _:
            return data + random.choice(ENDS)
