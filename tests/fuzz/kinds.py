"""The kinds of file that are read: a valid one of each, its reader, and what verbs do with it."""

import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.costs.machine import SPEC as COSTS_SPEC
from tests.costs.machine import SyntheticMachine, slope, table_of
from tests.report import fixtures
from tokensearch.costs import costs_from_json, costs_to_json, staircase
from tokensearch.costs.table import CostTable
from tokensearch.documents import parse_object
from tokensearch.errors import MeasurementError, NoPolicyError, PolicyError
from tokensearch.policy import Policy, PolicySet, Pool, Prune, mac_share
from tokensearch.policy.file import (
    policy_from_json,
    policy_to_json,
    set_from_json,
    set_to_json,
)
from tokensearch.report import tables
from tokensearch.report.grid import to_markdown

Document = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One format: `use` does what verbs do with what `read` lets through."""

    name: str
    valid: Callable[[], Document]
    read: Callable[[bytes], Any]
    use: Callable[[Any], None]

    def written(self) -> bytes:
        """The valid document as a file has it."""
        return json.dumps(self.valid()).encode()


def policy_document() -> Document:
    """A schedule with every kind of step, and evidence with intervals."""
    found = fixtures.ENTRIES[0].member("top1")
    return policy_to_json(found)


def use_policy(policy: Policy) -> None:
    """As `show` does: counts, tables, text; and write it again."""
    assert len(policy.patch_tokens_per_block) == policy.model.blocks
    assert 0 < mac_share(policy) <= 1
    to_markdown(tables.schedule_table(policy))
    to_markdown(tables.evidence_table(policy, "accuracy"))
    tables.schedule_line(policy)
    json.dumps(policy_to_json(policy), allow_nan=False)


def front_document() -> Document:
    return set_to_json(fixtures.front())


def use_front(policies: PolicySet) -> None:
    """As `best` and `calibrate` do."""
    for target in ("0.6x", "30ms", "1/s"):
        with suppress(NoPolicyError):
            policies.best(target)
    json.dumps(set_to_json(policies), allow_nan=False)


@cache
def costs_document() -> Document:
    made = table_of(SyntheticMachine(slope, noise=0.03), seconds=5)
    document: Document = json.loads(json.dumps(costs_to_json(made)))
    return document


def use_costs(table: CostTable) -> None:
    """As a search does: predict; and as `show` does: draw the staircase."""
    reduced = Policy(table.model, (Prune(0, 1),))
    for policy in (Policy(table.model), reduced, Policy(COSTS_SPEC, (Prune(1, 30), Pool(3, 20)))):
        assert math.isfinite(table.predict(policy))
        assert math.isfinite(table.ratio(policy))
        assert all(math.isfinite(block.ms) for block in table.blocks(policy))
    staircase(table)


def _json(error: type[Exception], build: Callable[[Document], Any]) -> Callable[[bytes], Any]:
    return lambda data: build(parse_object(data, error=error))


KINDS = {
    kind.name: kind
    for kind in (
        Kind("policy", policy_document, _json(PolicyError, policy_from_json), use_policy),
        Kind("front", front_document, _json(PolicyError, set_from_json), use_front),
        Kind("costs", costs_document, _json(MeasurementError, costs_from_json), use_costs),
    )
}
