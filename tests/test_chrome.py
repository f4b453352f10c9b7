"""Traces of torch.profiler are read as its own tables have them, and anything else is refused."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function, schedule

import tokensearch.chrome.events
import tokensearch.chrome.trace
from tokensearch.chrome import ChromeTrace, read_trace
from tokensearch.diff.operators import operator_changes
from tokensearch.errors import MeasurementError, TokensearchWarning
from tokensearch.measure.tracer import trace_passes
from tokensearch.records.profile import Operator, range_name

Table = dict[str, tuple[int, float]]  # calls and milliseconds by name


# Real traces: the profiler's own tables are the reference.


class TwoHalves(nn.Module):
    """A model with one of our ranges within another, as the runtime writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mlp, self.norm = nn.Linear(64, 64), nn.Linear(64, 64), nn.LayerNorm(64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        with record_function(range_name(3, "mlp")):
            with record_function(range_name(3, "norm")):
                x = self.norm(x)
            x = self.mlp(x).relu()
        return x.softmax(-1)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[ChromeTrace, Table]:
    """Three steps of forward and backward: as we read them, and as the profiler sums them up."""
    path, table = tmp_path_factory.mktemp("traces") / "real.pt.trace.json.gz", {}
    model, x = TwoHalves(), torch.randn(8, 64)

    def keep(profiler: profile) -> None:
        profiler.export_chrome_trace(str(path))
        table.update(
            {
                row.key: (row.count, row.self_cpu_time_total / 1000)
                for row in profiler.key_averages()
            }
        )

    with profile(
        activities=[ProfilerActivity.CPU],
        schedule=schedule(wait=1, warmup=1, active=3, repeat=1),
        on_trace_ready=keep,
        acc_events=True,
    ) as profiler:
        for _ in range(5):
            model(x).square().mean().backward()
            profiler.step()
    return read_trace(path), table


def test_operators_have_the_calls_and_the_own_times_of_the_profilers_table(
    real: tuple[ChromeTrace, Table],
) -> None:
    read, table = real
    expected = {
        name: (calls, pytest.approx(ms, rel=1e-6, abs=1e-5))
        for name, (calls, ms) in table.items()
        if not name.startswith(("ProfilerStep", "tokensearch."))
    }

    assert len(expected) > 20
    assert table_of(read) == expected


def test_steps_are_as_long_as_in_the_profilers_table(real: tuple[ChromeTrace, Table]) -> None:
    read, table = real
    steps_ms = sum(ms for name, (_, ms) in table.items())  # all is nested in a step

    assert read.stepped
    assert len(read.passes_ms) == 3
    assert sum(read.passes_ms) == pytest.approx(steps_ms, rel=1e-6)


def test_operators_lie_in_the_innermost_of_our_ranges(real: tuple[ChromeTrace, Table]) -> None:
    read, _ = real

    assert {(one.block, one.phase) for one in read.operators if one.name == "aten::linear"} == {
        (None, "other"),
        (3, "mlp"),
    }
    assert scope_of(read, "aten::native_layer_norm") == (3, "norm")
    assert scope_of(read, "aten::relu") == (3, "mlp")
    assert scope_of(read, "aten::_softmax") == (None, "other")


def test_a_profiles_own_trace_reads_back_as_its_operators(tmp_path: Path) -> None:
    model, x = TwoHalves(), torch.randn(8, 64)
    with torch.inference_mode():
        traced = trace_passes(
            lambda: model(x), name="own", device=torch.device("cpu"), passes=3, folder=tmp_path
        )

    read = read_trace(next(tmp_path.rglob("*.gz")))

    assert read.passes_ms == pytest.approx(traced.passes_ms, abs=1e-5)
    assert flat(read.operators) == {
        key: pytest.approx(ms, abs=1e-5) for key, ms in flat(traced.operators).items()
    }
    assert sorted((one.name, one.calls) for one in read.operators) == sorted(
        (one.name, one.calls) for one in traced.operators
    )


def test_a_trace_without_a_schedule_is_one_pass(tmp_path: Path) -> None:
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        for _ in range(2):
            torch.ones(4).exp()
    profiler.export_chrome_trace(str(tmp_path / "whole.json"))

    read = read_trace(tmp_path / "whole.json")

    assert not read.stepped
    assert len(read.passes_ms) == 1
    assert {one.name: one.calls for one in read.operators}["aten::exp"] == 2


def test_a_loop_left_early_adds_no_empty_step(tmp_path: Path) -> None:
    with profile(
        activities=[ProfilerActivity.CPU],
        schedule=schedule(wait=0, warmup=1, active=9),
        acc_events=True,
    ) as profiler:
        for _ in range(4):
            torch.ones(4).exp()
            profiler.step()
    profiler.export_chrome_trace(str(tmp_path / "early.json"))

    assert len(read_trace(tmp_path / "early.json").passes_ms) == 3


def test_a_trace_compared_with_itself_has_no_change(real: tuple[ChromeTrace, Table]) -> None:
    read, _ = real

    assert {one.ms.value for one in operator_changes(read.operators, read.operators)} == {0.0}


# Traces written by hand, as kineto writes them on a GPU. Microseconds.


def host(name: str, ts: float, dur: float, *, cat: str = "cpu_op", **args: int) -> dict[str, Any]:
    named = {"External id" if key == "external" else key: value for key, value in args.items()}
    times = {"ts": ts, "dur": dur, "pid": 70, "tid": 71}
    return {"ph": "X", "cat": cat, "name": name, **times, "args": named}


def launch(ts: float, **args: int) -> dict[str, Any]:
    return host("cudaLaunchKernel", ts, 5, cat="cuda_runtime", **args)


def mark(name: str, ts: float, dur: float) -> dict[str, Any]:
    return host(name, ts, dur, cat="user_annotation")


def kernel(
    name: str, ts: float, dur: float, *, stream: int = 7, cat: str = "kernel", **args: int
) -> dict[str, Any]:
    return {**host(name, ts, dur, cat=cat, **args), "pid": 0, "tid": stream}


# The host is one step ahead of the device: the kernel of step 1 ends in step 2.
ON_GPU = [
    {"ph": "M", "name": "process_name", "pid": 0, "tid": 0, "args": {"name": "python"}},
    mark("ProfilerStep#1", 1000, 100),
    mark("tokensearch.block.2.attention", 1010, 50),
    host("aten::mm", 1020, 30, external=11),
    launch(1030, external=11, correlation=501),
    kernel("gemm", 1150, 80, external=11, correlation=501),
    {"ph": "s", "cat": "ac2g", "id": 501, "pid": 70, "tid": 71, "ts": 1030, "name": "ac2g"},
    mark("ProfilerStep#2", 1100, 200),
    host("aten::copy_", 1110, 20, external=12),
    host("cudaMemcpyAsync", 1115, 5, cat="cuda_runtime", external=12, correlation=502),
    kernel("Memcpy DtoH", 1210, 40, stream=8, cat="gpu_memcpy", external=12, correlation=502),
    {**kernel("tokensearch.block.2.attention", 1150, 80), "cat": "gpu_user_annotation"},
]


def test_kernels_count_in_the_step_and_the_phase_of_their_launch(tmp_path: Path) -> None:
    read = read_events(tmp_path, ON_GPU)

    assert [one for one in read.operators if one.kernel] == [
        Operator(2, "attention", "gemm", True, 0.5, (0.08, 0.0)),
        Operator(None, "other", "Memcpy DtoH", True, 0.5, (0.0, 0.04)),
    ]
    assert read.passes_ms == (0.1, 0.2)


def test_launching_is_an_operator_and_not_part_of_what_launches(tmp_path: Path) -> None:
    read = read_events(tmp_path, ON_GPU)

    assert flat([one for one in read.operators if not one.kernel]) == {
        (2, "attention", "aten::mm", False): (0.025, 0.0),
        (2, "attention", "cudaLaunchKernel", False): (0.005, 0.0),
        (None, "other", "aten::copy_", False): (0.0, 0.015),
        (None, "other", "cudaMemcpyAsync", False): (0.0, 0.005),
    }


def test_a_device_is_busy_once_however_many_streams_run(tmp_path: Path) -> None:
    side_by_side = [
        *ON_GPU[:5],
        kernel("long", 1150, 80, correlation=501),
        kernel("within", 1160, 10, stream=8, correlation=501),
        kernel("across", 1220, 30, stream=8, correlation=501),
    ]

    assert read_events(tmp_path, side_by_side).busy_ms == (0.1,)


def test_without_a_device_there_is_no_busy_time(real: tuple[ChromeTrace, Table]) -> None:
    assert real[0].busy_ms == ()


def test_kernels_of_an_unknown_launch_count_in_the_last_step_begun(tmp_path: Path) -> None:
    read = read_events(
        tmp_path,
        [*ON_GPU, kernel("early", 900, 9), kernel("one", 1099, 9), kernel("late", 9000, 9)],
    )

    assert {one.name: one.passes_ms for one in read.operators if one.kernel} == {
        "gemm": (0.08, 0.0),
        "Memcpy DtoH": (0.0, 0.04),
        "one": (0.009, 0.0),
        "late": (0.0, 0.009),
    }


def test_kernels_of_a_replayed_graph_share_its_launch(tmp_path: Path) -> None:
    replayed = [
        mark("ProfilerStep#1", 0, 100),
        host("cudaGraphLaunch", 10, 50, cat="cuda_runtime", correlation=9),
        kernel("first", 200, 10, correlation=9),
        kernel("second", 210, 20, correlation=9),
    ]

    read = read_events(tmp_path, replayed)

    assert {one.name: one.passes_ms for one in read.operators if one.kernel} == {
        "first": (0.01,),
        "second": (0.02,),
    }


def test_without_correlation_the_operator_of_the_same_id_launched(tmp_path: Path) -> None:
    events = [event for event in ON_GPU if event.get("cat") != "cuda_runtime"]

    assert scope_of(read_events(tmp_path, events), "gemm") == (2, "attention")


def test_older_releases_are_read(tmp_path: Path) -> None:
    older = {"cpu_op": "Operator", "user_annotation": "Operator", "cuda_runtime": "Runtime"}
    older |= {"kernel": "Kernel", "gpu_memcpy": "Memcpy"}
    aged = [dict(event) for event in ON_GPU[:-1]]
    for event in aged:
        event["cat"] = older.get(event.get("cat", ""), "other")
        if event["cat"] == "Runtime":
            event["tid"] = "1234567"  # on a track of its own
        arguments = event.get("args", {})
        event["args"] = {key.replace("Ext", "ext"): value for key, value in arguments.items()}

    read = read_events(tmp_path, aged)

    assert scope_of(read, "gemm") == (2, "attention")
    assert read.passes_ms == (0.1, 0.2)
    assert scope_of(read, "aten::mm") == (2, "attention")


def test_devices_and_versions_are_kept(tmp_path: Path) -> None:
    read = read_document(
        tmp_path,
        {
            "schemaVersion": 1,
            "deviceProperties": [{"id": 0, "name": "NVIDIA H100"}, {"id": 1, "name": "idle"}],
            "cuda_runtime_version": 12080,
            "torch": "2.9.0",
            "distributedInfo": {"rank": 0},
            "overhead": float("nan"),
            "traceEvents": ON_GPU,
        },
    )

    assert read.name == "trace.json"
    assert read.devices == ("NVIDIA H100",)
    assert read.metadata == {"schemaVersion": 1, "cuda_runtime_version": 12080, "torch": "2.9.0"}


# Nesting


def test_events_that_touch_are_not_nested(tmp_path: Path) -> None:
    read = read_events(tmp_path, [host("first", 0, 10), host("second", 10, 10)])

    assert table_of(read) == {"first": (1, 0.01), "second": (1, 0.01)}


def test_what_begins_where_a_range_ends_is_outside(tmp_path: Path) -> None:
    events = [mark(range_name(0, "mlp"), 0, 10), host("within", 0, 10), host("after", 10, 0)]

    read = read_events(tmp_path, events)

    assert scope_of(read, "within") == (0, "mlp")
    assert scope_of(read, "after") == (None, "other")


def test_events_of_no_length_take_nothing(tmp_path: Path) -> None:
    events = [host("outer", 0, 10), host("a", 0, 0), host("b", 0, 0), host("c", 10, 0)]

    assert table_of(read_events(tmp_path, events)) == {
        "outer": (1, 0.01),
        "a": (1, 0.0),
        "b": (1, 0.0),
        "c": (1, 0.0),
    }


def test_an_event_that_outlasts_another_stands_beside_it(tmp_path: Path) -> None:
    events = [host("whole", 0, 30), host("first", 0, 20), host("beyond", 10, 20)]

    assert table_of(read_events(tmp_path, events)) == {
        "whole": (1, 0.0),  # 30 - 20 - 20, and never below 0
        "first": (1, 0.02),
        "beyond": (1, 0.02),
    }


def test_an_overload_that_calls_another_is_one_call(tmp_path: Path) -> None:
    events = [host("aten::mean", 0, 10), host("aten::mean", 2, 5), host("aten::sum", 3, 1)]

    assert table_of(read_events(tmp_path, events)) == {
        "aten::mean": (1, 0.009),
        "aten::sum": (1, 0.001),
    }


def test_two_calls_within_one_of_the_same_name_are_three(tmp_path: Path) -> None:
    events = [host("again", 0, 10), host("again", 2, 3), host("again", 6, 3)]

    assert table_of(read_events(tmp_path, events)) == {"again": (3, 0.01)}


def test_threads_are_apart(tmp_path: Path) -> None:
    events = [host("outer", 0, 30), {**host("elsewhere", 10, 10), "tid": "worker"}]

    assert table_of(read_events(tmp_path, events))["outer"] == (1, 0.03)


def test_times_since_1970_nest_although_floats_cannot_hold_them(tmp_path: Path) -> None:
    start = 1621401187223197.0  # the next float is 0.25 later, so ends are off by as much
    events = [host("outer", start, 5.1), host("inner", start + 2.2, 2.9)]

    assert table_of(read_events(tmp_path, events))["outer"] == (1, pytest.approx(0.0022))


def test_of_two_with_the_same_times_the_lower_id_is_outside(tmp_path: Path) -> None:
    events = [host("inner", 0, 10, external=2), host("outer", 0, 10, external=1)]

    assert table_of(read_events(tmp_path, events)) == {"outer": (1, 0.0), "inner": (1, 0.01)}


Tree = list[Any]  # of trees: what an event holds


@given(st.recursive(st.just([]), lambda trees: st.lists(trees, max_size=4), max_leaves=30))
def test_own_times_add_up_to_the_whole(
    tmp_path_factory: pytest.TempPathFactory, tree: Tree
) -> None:
    events: list[dict[str, Any]] = []
    end = laid_out(tree, 100, events)

    operators = read_events(tmp_path_factory.mktemp("tree"), events[::-1]).operators

    assert sum(one.ms for one in operators) == pytest.approx((end - 100) / 1000)
    assert [one.ms for one in operators] == [pytest.approx(0.002)] * len(events)


def laid_out(tree: Tree, start: int, events: list[dict[str, Any]]) -> int:
    """Add an event that takes 1 before and 1 after what it holds; return its end."""
    place = len(events)
    events.append({})
    end = start + 1
    for branch in tree:
        end = laid_out(branch, end, events)
    events[place] = host(f"event {place}", start, end + 1 - start)
    return end + 1


# Refusals


def test_bytes_and_not_the_name_tell_what_is_gzipped(tmp_path: Path) -> None:
    text = json.dumps({"traceEvents": ON_GPU}).encode()
    (tmp_path / "zipped.json").write_bytes(gzip.compress(text))
    (tmp_path / "plain.json.gz").write_bytes(text)

    zipped, plain = (read_trace(tmp_path / name) for name in ("zipped.json", "plain.json.gz"))

    assert zipped.operators == plain.operators


WHOLE = json.dumps({"traceEvents": ON_GPU}).encode()
ZIPPED = gzip.compress(WHOLE, mtime=0)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no JSON"),
        (WHOLE[: len(WHOLE) // 2], "not all of it"),
        (ZIPPED[: len(ZIPPED) // 2], "cannot be read"),
        (ZIPPED[:50] + b"\xff" * 20 + ZIPPED[70:], "cannot be read"),
        (ZIPPED + b"more", "cannot be read"),
        (ZIPPED[:3], "cannot be read"),
        (b"\xff\xfe\xff", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"traceEvents": [' + b"1" * 5000 + b"]}", "no JSON"),
        (b"[]", "no traceEvents"),
        (b"3", "no traceEvents"),
        (b'{"ph": "X"}', "no traceEvents"),
        (b'{"traceEvents": {}}', "no traceEvents"),
        (b'{"$schema": "speedscope", "shared": {"frames": []}, "profiles": []}', "no traceEvents"),
        (b'{"nodes": [], "startTime": 1, "samples": [], "timeDeltas": []}', "no traceEvents"),
        (b'{"format": "tokensearch.policy", "version": 1}', "no traceEvents"),
        (b'{"traceEvents": []}', "no operators"),
        (b'{"traceEvents": [{"ph": "X", "cat": "v8", "name": "x"}]}', "no operators"),
        (b'{"traceEvents": [null]}', "no event"),
        (b'{"traceEvents": [{"name": "without ph"}]}', "no event"),
    ],
)
def test_what_is_no_whole_trace_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "odd.json").write_bytes(data)

    refused(tmp_path / "odd.json", said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ts": "1"}, "has ts '1'"),
        ({"ts": None}, "has ts None"),
        ({"ts": True}, "has ts True"),
        ({"ts": -1}, "has ts -1"),
        ({"ts": 10**400}, "has ts 1000"),
        ({"dur": float("nan")}, "has dur nan"),
        ({"dur": float("inf")}, "has dur inf"),
        ({"dur": -0.001}, "has dur -0.001"),
        ({"dur": [5]}, r"has dur \[5\]"),
        ({"name": 7}, "has name 7"),
        ({"pid": None}, "has pid None"),
        ({"tid": {}}, "has tid {}"),
        ({"args": []}, r"args \[\]"),
        ({"args": {"correlation": "1"}}, "has correlation '1'"),
        ({"args": {"External id": 1.5}}, "has External id 1.5"),
    ],
)
def test_an_event_of_wrong_types_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    write(tmp_path / "odd.json", {"traceEvents": [{**host("aten::mm", 0, 1), **change}]})

    refused(tmp_path / "odd.json", f"^(an )?event .*{said}")


@pytest.mark.parametrize("bad", [{"dur": -0.001}, {"name": 7}, {"tid": {}}])
def test_one_event_of_wrong_types_among_hundreds_is_left_out(
    tmp_path: Path, bad: dict[str, Any]
) -> None:
    good = [host("aten::mm", 10 * number, 1) for number in range(200)]
    write(tmp_path / "trace.json", {"traceEvents": [*good, {**host("aten::mm", 0, 1), **bad}]})

    with pytest.warns(
        TokensearchWarning, match="1 of 201 events are left out; the first: (an )?event"
    ):
        trace = read_trace(tmp_path / "trace.json")

    assert [operator.calls for operator in trace.operators] == [200]


@pytest.mark.parametrize(
    ("written", "odd"),
    [
        (rb"C:\\Users\\x\\1.py", rb"C:\Users\x\1.py"),  # as torch wrote them on Windows
        (b"a tab", b"a\ttab"),
        (b"caf?", b"caf\xe9"),  # in the encoding of a system
    ],
)
def test_a_trace_with_names_that_are_no_json_is_read(
    tmp_path: Path, written: bytes, odd: bytes
) -> None:
    events = [host("aten::mm", 0, 1), {**host("PLACE", 5, 1), "cat": "python_function"}]
    data = json.dumps({"traceEvents": events}).encode()
    files = (tmp_path / "plain" / "trace.json", tmp_path / "odd" / "trace.json")
    for file, name in zip(files, (written, odd), strict=True):
        file.parent.mkdir()
        file.write_bytes(data.replace(b"PLACE", name))

    plain, mended = map(read_trace, files)

    assert plain == mended


def test_values_that_are_not_available_are_read(tmp_path: Path) -> None:
    text = json.dumps({"traceEvents": [host("aten::mm", 0, 1)], "clock": "N/A"})
    (tmp_path / "trace.json").write_text(text.replace('"N/A"', "N/A"))

    assert len(read_trace(tmp_path / "trace.json").operators) == 1


def test_steps_of_several_processes_are_refused(tmp_path: Path) -> None:
    other = {**mark("ProfilerStep#1", 1050, 100), "pid": 99}
    write(tmp_path / "merged.json", {"traceEvents": [*ON_GPU, other]})

    refused(tmp_path / "merged.json", "several processes")


def test_operators_outside_all_steps_are_refused(tmp_path: Path) -> None:
    events = [mark("ProfilerStep#1", 0, 10), host("aten::mm", 50, 10)]
    write(tmp_path / "outside.json", {"traceEvents": events})

    refused(tmp_path / "outside.json", "within its steps")


def test_a_file_or_folder_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.json", "No such file")
    refused(tmp_path, "Is a directory")


def test_a_file_above_the_limit_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(tokensearch.chrome.events.MAX_BYTES + 1)

    refused(tmp_path / "large.json", "larger than 64 MB; record fewer steps")


def test_a_small_file_with_a_large_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokensearch.chrome.events, "MAX_BYTES", 10**6)
    (tmp_path / "bomb.json.gz").write_bytes(gzip.compress(b" " * (10**6 + 1)))

    refused(tmp_path / "bomb.json.gz", "larger than 1 MB; record fewer steps")


def test_more_events_than_are_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokensearch.chrome.events, "MAX_EVENTS", 3)
    write(tmp_path / "many.json", {"traceEvents": ON_GPU})

    refused(tmp_path / "many.json", "more than 3 events; record fewer steps")


def test_more_figures_than_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokensearch.chrome.trace, "MAX_FIGURES", 11)
    write(tmp_path / "many.json", {"traceEvents": ON_GPU})

    refused(tmp_path / "many.json", "2 steps of 6 operators; record fewer steps")


def test_halves_of_characters_become_printable(tmp_path: Path) -> None:
    document = {"traceEvents": [host("half \ud800", 0, 1)], "note": "\udfff"}

    read = read_document(tmp_path, document)

    assert read.operators[0].name == "half ?"
    assert read.metadata == {"note": "?"}


# Fuzzing: whatever is in a file, it is a trace or a MeasurementError.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
fuzzed = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzzed
@given(data=st.data())
def test_a_changed_field_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    events = json.loads(json.dumps(ON_GPU))
    for _ in range(data.draw(st.integers(1, 4))):
        event = data.draw(st.sampled_from(events))
        fields = event["args"] if data.draw(st.booleans()) and "args" in event else event
        if isinstance(fields, dict) and fields:
            fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(json_values)
    extra = data.draw(st.dictionaries(st.text(max_size=5), json_values, max_size=2))
    devices = data.draw(json_values | st.lists(st.fixed_dictionaries({"id": json_values})))
    write(tmp_path / "fuzzed.json", {**extra, "deviceProperties": devices, "traceEvents": events})

    read_or_refused(tmp_path / "fuzzed.json")


@fuzzed
@given(whole=st.sampled_from([WHOLE, ZIPPED]), at=st.floats(0, 1), put=st.binary(max_size=40))
def test_changed_bytes_are_read_or_refused(
    tmp_path: Path, whole: bytes, at: float, put: bytes
) -> None:
    start = int(at * len(whole))
    (tmp_path / "fuzzed.json").write_bytes(whole[:start] + put + whole[start + len(put) // 2 :])

    read_or_refused(tmp_path / "fuzzed.json")


# Helpers


def read_events(folder: Path, events: list[dict[str, Any]]) -> ChromeTrace:
    return read_document(folder, {"traceEvents": events})


def read_document(folder: Path, document: dict[str, Any]) -> ChromeTrace:
    write(folder / "trace.json", document)
    return read_trace(folder / "trace.json")


def write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document))


def table_of(read: ChromeTrace) -> Table:
    table: Table = {}
    for one in read.operators:
        calls, ms = table.get(one.name, (0, 0.0))
        steps = len(one.passes_ms)
        table[one.name] = (calls + round(one.calls * steps), ms + sum(one.passes_ms))
    return table


def flat(operators: Any) -> dict[tuple[Any, ...], tuple[float, ...]]:
    return {(one.block, one.phase, one.name, one.kernel): one.passes_ms for one in operators}


def scope_of(read: ChromeTrace, name: str) -> tuple[int | None, str]:
    (place,) = {(one.block, one.phase) for one in read.operators if one.name == name}
    return place


def refused(path: Path, said: str) -> None:
    with pytest.raises(MeasurementError, match=said) as caught:
        read_trace(path)
    assert str(caught.value).endswith(f" (in {path})")
    assert "\n" not in str(caught.value)


def read_or_refused(path: Path) -> None:
    try:
        read = read_trace(path)
    except MeasurementError:
        return
    assert read.operators
    assert all(ms >= 0 for one in read.operators for ms in one.passes_ms)
    assert {len(one.passes_ms) for one in read.operators} == {len(read.passes_ms)}
    json.dumps(read.metadata, allow_nan=False).encode()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"[]," * 6_000_000, "the trace has 6000002 objects and lists of 6000000 values"),
        (b"0," * 11_000_000, "the trace has 2 objects and lists of 11000000 values"),
    ],
)
def test_a_trace_that_takes_far_more_memory_than_its_text_is_refused_before_it_is_parsed(
    tmp_path: Path, text: bytes, what: str
) -> None:
    path = tmp_path / "parts.json.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"traceEvents":[' + text + b"0]}")

    with pytest.raises(MeasurementError, match=what):
        read_trace(path)


def test_a_pipe_is_no_trace_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")

    with pytest.raises(MeasurementError, match="a trace is a regular file"):
        read_trace(tmp_path / "pipe.json")
