"""Presets as a table and in words: what each leaves, and what it was made for."""

from collections.abc import Iterable, Iterator, Mapping

from tokensearch.policy import FAMILIES, Policy, block_macs, find, known_preset, mac_share
from tokensearch.report import text
from tokensearch.report.run.tables import token_strip
from tokensearch.report.table import ReportTable

_FEW_COUNTS, _FEW_NAMES = 3, 10  # of which all are shown


def preset_table(policies: Mapping[str, Policy]) -> ReportTable:
    """Presets by name: what they leave of a model's tokens, and of its blocks' work per image."""
    columns = ("preset", "tokens by block", "left", "GMACs", "share", "source")
    rows = [
        (
            name,
            token_strip(policy),
            _left(policy),
            text.giga(sum(block_macs(policy))),
            text.percent(mac_share(policy)),
            find(name).source,
        )
        for name, policy in policies.items()
    ]
    return ReportTable(columns, rows, numbers=frozenset({"GMACs", "share"}))


def _left(policy: Policy) -> str:
    """Patch tokens after each step; of many steps, after the first and the last."""
    counts = dict.fromkeys(policy.patch_tokens_after_block)
    shown = [text.count(count) for count in counts if count < policy.model.patch_tokens]
    return " ".join(shown if len(shown) <= _FEW_COUNTS else [shown[0], "..", shown[-1]])


def notes(policies: Mapping[str, Policy | None], *, rescale: bool) -> Iterator[str]:
    """What the table does not say: what was carried over, what is left out, what else there is."""
    carried = [name for name, policy in policies.items() if policy and is_rescaled(policy)]
    left_out = [name for name, policy in policies.items() if policy is None]
    for origin, names in _by_origin(carried).items():
        yield f"Carried over by ratio, made for {origin}: {_some(names)}."
    remedy = "cannot be carried over" if rescale else "--rescale carries them over by ratio"
    for origin, names in _by_origin(left_out).items():
        yield f"Left out, made for {origin}: {_some(names)}; {remedy}."
    yield f"These names take any number: {text.listed([family.shown for family in FAMILIES])}."


def _by_origin(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by what their presets were made for; those made for any model are left out."""
    origins: dict[str, list[str]] = {}
    for name in names:
        if origin := find(name).origin:
            origins.setdefault(origin, []).append(name)
    return origins


def _some(names: list[str]) -> str:
    more = [f"{len(names) - _FEW_NAMES} more"] if len(names) > _FEW_NAMES else []
    return text.listed([*names[:_FEW_NAMES], *more])


def provenance_lines(policy: Policy) -> Iterator[str]:
    """Which preset a policy is, and what became of it if it was made for another model."""
    name = str(policy.provenance.get("preset"))
    if known := known_preset(name):  # a file may name a preset of another version
        yield f"{name}: {known.summary} ({known.source})"
    if is_rescaled(policy):
        yield rescaled_line(policy)


def is_rescaled(policy: Policy) -> bool:
    """Whether a policy is a preset that was made for another model."""
    return "rescaled" in policy.provenance


def rescaled_line(policy: Policy) -> str:
    """What became of a preset that was made for another model."""
    name, origin = (policy.provenance.get(what) for what in ("preset", "rescaled"))
    return f"{name} is carried over by ratio {origin}, and is no published schedule"
