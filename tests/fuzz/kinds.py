"""The kinds of file that are read: a valid one of each, its reader, and what verbs do with it."""

import json
import math
import tomllib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean
from typing import Any

from tests.costs.machine import SPEC as COSTS_SPEC
from tests.costs.machine import SyntheticMachine, slope, table_of
from tests.report import fixtures
from tests.report.profiles import profile
from tokensearch.chrome import ChromeTrace
from tokensearch.chrome.events import parse_events
from tokensearch.chrome.trace import trace_of
from tokensearch.costs import costs_from_json, costs_to_json, fit_staircase
from tokensearch.costs.forecast import Forecast
from tokensearch.costs.table import CostTable
from tokensearch.diff.ledger import make_ledger
from tokensearch.diff.operators import operator_changes
from tokensearch.documents import parse_object, validate
from tokensearch.errors import MeasurementError, NoPolicyError, PolicyError, RunError, SpaceError
from tokensearch.policy import (
    EMBEDDING_OBJECTIVES,
    OBJECTIVES,
    ModelSpec,
    Policy,
    PolicySet,
    Pool,
    Prune,
    Tensors,
    mac_share,
)
from tokensearch.policy.file import (
    policy_from_json,
    policy_to_json,
    set_from_json,
    set_to_json,
)
from tokensearch.policy.tensors import DTYPE_BYTES
from tokensearch.records.checks import TRIAL
from tokensearch.records.embedding import EmbeddingAccuracy
from tokensearch.records.measurements import Conditions, Trial, from_json, to_json
from tokensearch.records.profile import Ceilings, Operator, Profile, Work
from tokensearch.records.profile_file import profile_from_json, profile_to_json
from tokensearch.records.run_result import RunDocument
from tokensearch.report.diff.operators import (
    change_document,
    change_table,
    operator_table,
    trace_sentences,
)
from tokensearch.report.diff.sentences import ledger_sentences
from tokensearch.report.diff.to_json import ledger_to_json
from tokensearch.report.profile import facts, profile_block_table, profile_phase_table
from tokensearch.report.run import page, tables
from tokensearch.report.run.source import ReportSource
from tokensearch.report.table import table_to_markdown
from tokensearch.search.early_stopping import trial_value
from tokensearch.search.space.space import SearchSpace
from tokensearch.search.space.toml import parse_space, shipped_path

Document = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One format: `use` does what verbs do with what `read` lets through."""

    name: str
    valid: Callable[[], Document]
    read: Callable[[bytes], Any]
    use: Callable[[Any], None]
    write: Callable[[Document], str] = json.dumps

    def written(self) -> bytes:
        """The valid document as a file has it."""
        return self.write(self.valid()).encode()


def policy_document() -> Document:
    """A schedule with every kind of step, and evidence with intervals."""
    found = fixtures.ENTRIES[0].member("top1")
    return policy_to_json(found)


def use_policy(policy: Policy) -> None:
    """As `show` does: counts, tables, text; and write it again."""
    assert len(policy.patch_tokens_per_block) == policy.model.blocks
    assert 0 < mac_share(policy) <= 1
    table_to_markdown(tables.schedule_table(policy))
    table_to_markdown(tables.evidence_table(policy, "accuracy"))
    tables.schedule_line(policy)
    json.dumps(policy_to_json(policy), allow_nan=False)


def front_document() -> Document:
    return set_to_json(fixtures.front())


def use_front(policies: PolicySet) -> None:
    """As `best` and `calibrate` do."""
    for target in ("0.6x", "30ms", "1/s"):
        with suppress(NoPolicyError):
            policies.best(target)
    with suppress(NoPolicyError, PolicyError):
        policies.best(max_drop=1.0, max_divergence=0.1, doubtful=True)
    json.dumps(set_to_json(policies), allow_nan=False)


@cache
def costs_document() -> Document:
    made = table_of(SyntheticMachine(slope, noise=0.03), seconds=5)
    document: Document = json.loads(json.dumps(costs_to_json(made)))
    for curve in document["curves"]:  # counts as far apart as on a large model: short files
        curve |= {name: curve[name][::6] for name in ("counts", "ms", "error_ms")}
    launches = {"pass_ms": 20.0, "names": ["prune drop"], "added_ms": [1.0]}
    return document | {"launches": launches}


def use_costs(table: CostTable) -> None:
    """As a search does: predict; and as `show` does: draw the staircase."""
    reduced = Policy(table.model, (Prune(0, 1),))
    for policy in (Policy(table.model), reduced, Policy(COSTS_SPEC, (Prune(1, 30), Pool(3, 20)))):
        assert math.isfinite(table.predict(policy))
        assert math.isfinite(table.ratio(policy))
        assert all(math.isfinite(block.ms) for block in table.blocks(policy))
    fit_staircase(table)


def profile_document() -> Document:
    small = replace(fixtures.SPEC, blocks=3)
    policy = Policy(small, (Prune(1, 120),))
    made = profile(
        policy,
        fixtures.host_ms(policy),
        name="answer",
        plain_ms=10.0,
        floor=fixtures.host_ms(policy),
        operators=(
            Operator(0, "mlp", "aten::linear", kernel=False, calls=2.0, passes_ms=(1.0, 1.1)),
        ),
        traced_ms=(11.0, 11.2),
        work=(Work(0, "mlp", 1e9, 1e6),),
        ceilings=Ceilings(100.0, 20.0),
        conditions=Conditions(tick_ms=1e-4, others=0.1),
        peak_bytes=10**6,
    )
    document: Document = json.loads(json.dumps(profile_to_json(made)))
    return document


@cache
def other_profile() -> Profile:
    return profile_from_json(profile_document())


def use_profile(found: Profile) -> None:
    """As `profile` and `diff` do: tables, and the ledger to another."""
    list(facts(found))
    for grid in (profile_phase_table(found), profile_block_table(found)):
        table_to_markdown(grid)
    if found.operators:
        table_to_markdown(operator_table(found.operators, whole_ms=fmean(found.traced_ms)))
    explained = make_ledger(other_profile(), found)
    assert all(math.isfinite(term.ms.value) for term in explained.terms)
    ledger_sentences(explained)
    json.dumps(ledger_to_json(explained), allow_nan=False)
    json.dumps(profile_to_json(found), allow_nan=False)


def trial_document() -> Document:
    document: Document = json.loads(json.dumps(to_json(fixtures.trials()[0])))
    return document


def read_trial(data: bytes) -> Trial:
    """As a run folder reads its lines."""
    trial = parse_object(data, error=RunError)
    validate(trial, TRIAL, "the trial", RunError)
    return from_json(Trial, trial)


def use_trial(trial: Trial) -> None:
    """As a resumed search does: a record, its schedule, and what forecasts learn of it."""
    policy = policy_from_json(trial.policy)
    assert 0 < trial.ratio < math.inf
    if trial.comparison is not None:
        learned = Forecast(mac_share, 0.1).learned(policy, trial.comparison)
        assert math.isfinite(learned.ratio(policy))
        assert math.isfinite(learned.weighed(policy, trial.comparison))
    embedded = isinstance(trial.accuracy, EmbeddingAccuracy)
    for objective in OBJECTIVES:
        if (objective == "cosine") if embedded else (objective not in EMBEDDING_OBJECTIVES):
            assert math.isfinite(trial_value(trial.accuracy, objective))
        else:
            with suppress(PolicyError):
                trial_value(trial.accuracy, objective)
    json.dumps(to_json(trial), allow_nan=False)


@cache
def run_document() -> Document:
    run = fixtures.run_document()
    first, *_, last = run.finished.finalists
    short = replace(run, result=replace(run.finished, finalists=(first, last)))
    document: Document = json.loads(json.dumps(short.to_json()))
    return document


def read_run(data: bytes) -> RunDocument:
    return RunDocument.from_json(parse_object(data, error=RunError))


def use_run(run: RunDocument) -> None:
    """As `report`, `run` and `retarget` do."""
    page._page(ReportSource(run, fixtures.front(), (), None, None, None))
    for finalist in run.finished.finalists:
        assert 0 < finalist.comparison.ratio < math.inf
    assert RunDocument.from_json(json.loads(json.dumps(run.to_json()))) == run


def tensors_document() -> Document:
    numbers, header, names = "", Document(), ("merger.5.queries", "norm.weight", "norm.bias")
    for name in names:
        header[name] = {"dtype": "F32", "shape": [2, 3], "data_offsets": [len(numbers)]}
        numbers += "\0" * 24
        header[name]["data_offsets"].append(len(numbers))
    return {
        "header": {"__metadata__": {"made": "2026", "by": "hand"}, **header},
        "numbers": numbers,
    }


def to_tensors(document: Document) -> str:
    """Spell a document as a tensors file, in text: the bytes of the length are ASCII."""
    header = json.dumps(document.get("header"))
    header += " " * (-len(header) % 256)
    length = len(header).to_bytes(8, "little").decode("latin-1")
    return f"{length}{header}{document.get('numbers')}"


def use_tensors(tensors: Tensors) -> None:
    """As `apply` and `save` do: look at all, and write them again."""
    for raw in tensors.by_name.values():
        assert len(raw.data) == math.prod(raw.shape) * DTYPE_BYTES[raw.dtype]
    assert Tensors.pack(tensors.by_name).by_name == tensors.by_name


def space_document() -> Document:
    return tomllib.loads(shipped_path("default").read_text())


def to_toml(document: Document) -> str:
    """Spell a document as TOML, as far as it can be."""
    lines = [_entry(*one) for one in _flat(document, tables=False)]
    for section, table in _flat(document, tables=True):
        lines += [f"[{json.dumps(section)}]", *(_entry(*one) for one in table.items())]
    return "\n".join(lines)


def _entry(name: str, value: Any) -> str:
    return f"{json.dumps(name)} = {_toml(value)}"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(_entry(*one) for one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)


def _flat(found: Document, *, tables: bool) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in found.items() if isinstance(value, dict) is tables]


def use_space(space: SearchSpace) -> None:
    """As a search does: dimensions, size, the schedule that is nearest to one, and one drawn."""
    for model in (fixtures.SPEC, ModelSpec("deep", 64, 1024, 0, 8)):
        with suppress(SpaceError):  # none of its blocks may be of this model
            dimensions = space.fitting(model, scored=True, prefix_read=True).dimensions(model)
            assert all(len(values) > 1 for values in dimensions.values())
            space.build({name: values[-1] for name, values in dimensions.items()}, model)
            space.nearest(Policy(model, (Prune(0, 50), Pool(3, 30))), model)
            assert space.size(model) > 0


def trace_document() -> Document:
    def event(name: str, kind: str, start: float, us: float, **more: Any) -> Document:
        times = {"ts": 1e12 + start, "dur": us}
        return {"ph": "X", "cat": kind, "name": name, "pid": 7, "tid": 7, **times, **more}

    return {
        "schemaVersion": 1,
        "deviceProperties": [{"id": 0, "name": "Example GPU"}],
        "traceEvents": [
            event("ProfilerStep#1", "user_annotation", 0, 100),
            event("tokensearch.block.0.mlp", "user_annotation", 5, 60),
            event("aten::linear", "cpu_op", 10, 40, args={"External id": 1}),
            event("aten::addmm", "cpu_op", 12, 30, args={"External id": 2, "Dims": [[8, 64]]}),
            event("cudaLaunchKernel", "cuda_runtime", 20, 5, args={"correlation": 3}),
            event("gemm", "kernel", 30, 20, pid=0, args={"correlation": 3, "External id": 2}),
            event("ProfilerStep#2", "user_annotation", 110, 90),
            event("aten::linear", "cpu_op", 120, 40, args={"External id": 4}),
            {"ph": "f", "id": 3, "ts": 1e12 + 30, "pid": 0, "tid": 7},
        ],
    }


def read_trace(data: bytes) -> ChromeTrace:
    return trace_of("trace.json", *parse_events(data))


def use_trace(found: ChromeTrace) -> None:
    """As `diff` does: operators, changes to another trace, and sentences."""
    other = read_trace(json.dumps(trace_document()).encode())
    changes = operator_changes(other.operators, found.operators)
    table_to_markdown(change_table(changes))
    trace_sentences((other, found), ("one", "other"), changes)
    json.dumps(change_document(changes, ("one", "other")), allow_nan=False)


def _json(error: type[Exception], build: Callable[[Document], Any]) -> Callable[[bytes], Any]:
    return lambda data: build(parse_object(data, error=error))


KINDS = {
    kind.name: kind
    for kind in (
        Kind("policy", policy_document, _json(PolicyError, policy_from_json), use_policy),
        Kind("front", front_document, _json(PolicyError, set_from_json), use_front),
        Kind("costs", costs_document, _json(MeasurementError, costs_from_json), use_costs),
        Kind("profile", profile_document, _json(MeasurementError, profile_from_json), use_profile),
        Kind("trial", trial_document, read_trial, use_trial),
        Kind("run", run_document, read_run, use_run),
        Kind("space", space_document, parse_space, use_space, to_toml),
        Kind("tensors", tensors_document, Tensors.from_bytes, use_tensors, to_tensors),
        Kind("trace", trace_document, read_trace, use_trace),
    )
}
