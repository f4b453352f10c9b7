"""The search space: which blocks, which operators, which counts. A commented TOML file.

The encoding is flat and of fixed length: every allowed block always has an operator and a share,
the share of a block that keeps is drawn and ignored. Samplers then see one box, not a tree of
conditional parameters, which the Gaussian-process and multivariate samplers of Optuna need.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from tokensearch.errors import SpaceError
from tokensearch.policy import CLASS_SCORES, ModelSpec, Policy, Pool, Prune, Step
from tokensearch.policy.checks import kept_range
from tokensearch.policy.policy import LastBlock
from tokensearch.policy.steps import MATCHES, SCORES, Match, Score

_OPS = ("keep", "prune", "pool")


class Suggests(Protocol):
    """The part of an Optuna trial that the space leans on."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Choose one of `choices`."""
        ...


@dataclass(frozen=True, slots=True)
class Space:
    """Every schedule that a search may propose, for models of any depth."""

    name: str
    first: int  # allowed blocks: first, first + every, ... up to last
    last: int  # negative: counted from the end
    every: int
    ops: tuple[str, ...]
    left: tuple[float, ...]  # shares of the tokens that reach a site
    by: int  # counts are rounded to multiples of this
    score: Score
    match: Match
    proportional_attention: tuple[bool, ...]
    last_block: tuple[LastBlock, ...]
    digest: str  # of the file's text

    def blocks(self, model: ModelSpec) -> tuple[int, ...]:
        """Blocks of `model` that may reduce; SpaceError if there are none."""
        last = self.last if self.last >= 0 else model.blocks + self.last
        allowed = tuple(range(self.first, min(last, model.blocks - 1) + 1, self.every))
        if not allowed:
            raise SpaceError(
                f"search space {self.name!r} allows blocks {self.first} to {last}, "
                f"of which {model.name} with {model.blocks} blocks has none"
            )
        return allowed

    def fitting(self, model: ModelSpec, *, scored: bool, prefix_read: bool) -> "Space":
        """Return the part that `model` can follow.

        Without a class token tokens are scored by mean attention; a head that reads patch tokens
        needs the whole last block.
        """
        whole = tuple(kind for kind in self.last_block if prefix_read or kind == "full")
        by_class = self.score in CLASS_SCORES and not scored
        score: Score = "mean_attention" if by_class else self.score
        return replace(self, score=score, last_block=whole or ("full",))

    def suggest(self, trial: Suggests, model: ModelSpec) -> Policy:
        """Draw one schedule."""
        steps: list[Step] = []
        tokens = model.patch_tokens
        for block in self.blocks(model):
            op = trial.suggest_categorical(f"op.{block}", self.ops)
            share = trial.suggest_categorical(f"left.{block}", self.left)
            step = self._step(op, block, share, tokens)
            if step is not None:
                steps.append(step)
                tokens = step.keep
        return Policy(
            model,
            tuple(steps),
            proportional_attention=trial.suggest_categorical(
                "proportional_attention", self.proportional_attention
            ),
            last_block=trial.suggest_categorical("last_block", self.last_block),
        )

    def _step(self, op: str, block: int, share: float, tokens: int) -> Step | None:
        if op == "prune":
            return Prune(block, self.round(share * tokens, most=tokens), self.score)
        if op == "pool":
            keep = self.round(share * tokens, most=tokens)
            score = self.score if self.match == "ranked" else None
            least, _ = kept_range(Pool(block, tokens, self.match, score), tokens)
            return Pool(block, max(keep, least), self.match, score)
        return None

    def round(self, count: float, *, most: int) -> int:
        """Nearest allowed count from 1 to `most`."""
        return max(1, min(most, round(count / self.by) * self.by))


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


# A grid leaves a quarter of a whole grid or nothing, so there is no share to search.
_FREE_MATCHES = tuple(match for match in MATCHES if match != "grid")

_FIELDS: dict[str, dict[str, str]] = {
    "blocks": {"first": "an integer", "last": "an integer", "every": "an integer above 0"},
    "steps": {
        "ops": "a list of keep, prune, pool",
        "left": "a list of shares above 0 and below 1",
        "by": "an integer above 0",
        "score": f"one of {', '.join(SCORES)}",
        "match": f"one of {', '.join(_FREE_MATCHES)}",
    },
    "whole": {
        "proportional_attention": "a list of true, false",
        "last_block": "a list of full, prefix_only",
    },
}


def _allowed(name: str, value: Any) -> bool:
    """Whether `value` is what `_FIELDS` promises of `name`."""
    match name:
        case "first" | "last":
            return type(value) is int
        case "every" | "by":
            return type(value) is int and value > 0
        case "ops":
            return _list_of(value, lambda item: item in _OPS)
        case "left":
            return _list_of(value, lambda item: isinstance(item, float) and 0 < item < 1)
        case "score":
            return value in SCORES
        case "match":
            return value in _FREE_MATCHES
        case "proportional_attention":
            return _list_of(value, lambda item: isinstance(item, bool))
        case _:
            return _list_of(value, lambda item: item in ("full", "prefix_only"))


def _list_of(value: Any, allowed: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(allowed(item) for item in value)


def _space(document: Mapping[str, Any], *, digest: str) -> Space:
    unknown = document.keys() - {"name", *_FIELDS}
    if unknown or not isinstance(document.get("name"), str):
        what = f"has the unknown entry {min(unknown)!r}" if unknown else "has no name"
        raise SpaceError(f"the search space {what}; it holds name, {', '.join(_FIELDS)}")
    values: dict[str, Any] = {}
    for section, fields in _FIELDS.items():
        table = document.get(section)
        if not isinstance(table, dict) or table.keys() != fields.keys():
            raise SpaceError(f"section {section!r} must hold exactly {', '.join(fields)}")
        for name, wanted in fields.items():
            if not _allowed(name, table[name]):
                raise SpaceError(f"{section}.{name} is {table[name]!r}; it must be {wanted}")
            values[name] = tuple(table[name]) if isinstance(table[name], list) else table[name]
    return Space(name=document["name"], digest=digest, **values)
