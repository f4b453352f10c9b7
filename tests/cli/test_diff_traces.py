"""`tokensearch diff` of Chrome traces."""

import json
from pathlib import Path

from tests.cli.profiled import refused, run, trace_of
from tokensearch.chrome.events import MAX_BYTES


def test_two_traces_are_compared_by_operator(tmp_path: Path) -> None:
    one, other = trace_of(tmp_path / "a.json", width=64), trace_of(tmp_path / "b.json", width=512)

    found = run("diff", one, other, "--json")

    names = {change["name"] for change in json.loads(found.stdout)["operators"]}
    assert "aten::addmm" in names
    assert "aten::addmm" in run("diff", one, other).output


def test_traces_leave_a_ledger_of_operators_and_say_that_no_steps_are_marked(
    tmp_path: Path,
) -> None:
    one, other = trace_of(tmp_path / "a.json", width=8), trace_of(tmp_path / "b.json", width=8)

    found = run("diff", one, other, "--out", tmp_path / "out")

    document = json.loads((tmp_path / "out" / "ledger.json").read_text())
    assert document["operators"]
    assert document["words"][1:] == [
        f"{trace} marks no steps, so all of it counts as one." for trace in (one, other)
    ]
    assert f"{one} marks no steps" in "".join(found.stdout.splitlines())


def test_traces_of_two_devices_say_which(tmp_path: Path) -> None:
    one, other = trace_of(tmp_path / "a.json", width=8), tmp_path / "b.json"
    document = json.loads(one.read_text())
    first = next(event for event in document["traceEvents"] if event.get("cat") == "cpu_op")
    kernel = {"cat": "kernel", "name": "gemm", "pid": 0, "tid": 7, "args": {}}
    document["traceEvents"].append(first | kernel)
    document["deviceProperties"] = [{"id": 0, "name": "Example GPU"}]
    other.write_text(json.dumps(document))

    words = json.loads(run("diff", one, other, "--json").stdout)["words"]

    assert words[1] == (
        f"The devices differ: {one} ran on the host alone and {other} ran on Example GPU."
    )


def test_a_trace_that_is_too_large_is_refused_unread(
    stored: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # a hole: nothing is written

    assert "64 MB" in refused(stored[0], path)


def test_a_trace_cannot_be_compared_with_a_preset(tmp_path: Path) -> None:
    assert "none is neither" in refused("none", trace_of(tmp_path / "a.json", width=8))


def test_costs_are_refused_with_traces(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "a.json", width=8)

    said = refused(trace, trace, "--costs", tmp_path / "costs.json")

    assert "--costs are of token counts, of which a Chrome trace has none" in said


def test_the_first_sentence_says_how_long_a_step_takes_in_both(tmp_path: Path) -> None:
    one, other = trace_of(tmp_path / "a.json", width=8), trace_of(tmp_path / "b.json", width=512)

    headline = json.loads(run("diff", one, other, "--json").stdout)["words"][0]

    assert headline.startswith(f"{other} takes ")
    assert " a step under the profiler, " in headline
    assert "; the largest change: aten::" in headline


def test_of_a_single_step_nothing_is_called_the_same(tmp_path: Path) -> None:
    one, other = trace_of(tmp_path / "a.json", width=8), trace_of(tmp_path / "b.json", width=8)

    shown = run("diff", one, other).stdout

    assert "not testable: one step" in shown
    assert " same " not in shown


def test_options_of_a_cell_are_refused_with_two_traces(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "a.json", width=8)

    assert "--batch-size is for what is profiled on the spot" in refused(
        trace, trace, "--batch-size", "4"
    )


def test_a_profile_that_was_not_traced_has_no_operators_to_compare(
    stored: tuple[Path, Path], tmp_path: Path
) -> None:
    trace = trace_of(tmp_path / "a.json", width=8)

    assert "one.json was not traced, so it has no operators to compare" in refused(stored[0], trace)
