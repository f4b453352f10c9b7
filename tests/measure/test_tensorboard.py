"""TensorBoard is started on traces we wrote, and its profiler plugin is asked what it shows."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, record_function, schedule
from torch.profiler import profile as torch_profile

from tokensearch.errors import MeasurementError
from tokensearch.measure.tensorboard import for_plugin, write_trace

pytest.importorskip("torch_tb_profiler", reason="TensorBoard's profiler plugin is not installed")

PATIENCE_S = 180  # it takes about 8 s on two idle cores
PASSES = 2
BLOCKS = ["tokensearch.block.0", "tokensearch.block.1"]
GATHERING = "tokensearch.block.1.gathering"
DIRECT = build_opener(ProxyHandler({}))  # whatever proxy the environment names


@dataclass(frozen=True)
class Plugin:
    """The plugin's endpoints in a running TensorBoard."""

    url: str

    def ask(self, what: str, **about: str) -> Any:
        with DIRECT.open(f"{self.url}{what}?{urlencode(about)}", timeout=PATIENCE_S) as answer:
            zipped = answer.headers["Content-Encoding"] == "gzip"
            return json.loads(gzip.decompress(answer.read()) if zipped else answer.read())

    def ask_about(self, run: str, what: str, **more: str) -> Any:
        return self.ask(what, run=run, worker=run, span="1", **more)

    def diff(self, base: str, experiment: str, path: str = "0") -> Any:
        exp = {"exp_run": experiment, "exp_worker": experiment, "exp_span": "1"}
        return self.ask_about(base, "diffnode", path=path, **exp)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as profiles leave it: one sub-folder, and in it one trace, for each."""
    folder = tmp_path_factory.mktemp("tensorboard")
    write_profile(folder, "baseline", ranged_vit())
    write_profile(folder, "candidate", ranged_vit(halved=True))
    write_gpu_trace(folder, "gpu")
    return folder


@pytest.fixture(scope="module")
def plugin(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugin]:
    log = tmp_path_factory.mktemp("log") / "tensorboard.log"
    with tensorboard_running(folder, log) as process:
        until = patience(process, log)
        url = until(lambda: re.search(r"at (http://\S+/) ", log.read_text()))[1]
        plugin = Plugin(f"{url}data/plugin/pytorch_profiler/")
        until(lambda: plugin.ask("runs")["runs"] == ["baseline", "candidate", "gpu"])
        yield plugin


@contextmanager
def tensorboard_running(folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    where = ["--logdir", str(folder), "--host", "127.0.0.1", "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", *where],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(log.parent)},  # pytest clears it up
            start_new_session=True,  # so that its own processes can be ended with it
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def patience(process: subprocess.Popen[bytes], log: Path) -> Callable[[Callable[[], Any]], Any]:
    """What asks again until the answer is good, the process has died, or it is too late."""
    end_s = time.monotonic() + PATIENCE_S

    def until(answer: Callable[[], Any]) -> Any:
        while not (found := answer()):
            alive = process.poll() is None and time.monotonic() < end_s
            assert alive, f"TensorBoard did not come to it:\n{log.read_text()}"
            time.sleep(0.2)
        return found

    return until


def ranged_vit(*, halved: bool = False) -> nn.Module:
    """A ViT with ranges around its blocks and their halves; `halved` in the second block."""
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=len(BLOCKS), num_classes=4
    ).eval()
    for name, block in zip(BLOCKS, model.blocks, strict=True):
        in_range(block.attn, f"{name}.attention")
        in_range(block.mlp, f"{name}.mlp")
    if halved:
        drop_every_other_token(model.blocks[1])
    for name, block in zip(BLOCKS, model.blocks, strict=True):
        in_range(block, name)
    return model


def drop_every_other_token(block: nn.Module) -> None:
    """Let a block see only half of the tokens; the choice has a range of its own."""
    forward = block.forward

    def halved(x: Tensor, **options: Any) -> Tensor:
        with record_function(GATHERING):
            x = x[:, ::2].contiguous()
        return forward(x, **options)

    block.forward = halved


def in_range(module: nn.Module, name: str) -> None:
    forward = module.forward

    def ranged(x: Tensor, **options: Any) -> Tensor:
        with record_function(name):
            return forward(x, **options)

    module.forward = ranged


def write_profile(folder: Path, name: str, model: nn.Module) -> None:
    images = torch.randn(1, 3, 32, 32)
    with (
        torch.inference_mode(),
        torch_profile(
            activities=[ProfilerActivity.CPU],
            schedule=schedule(wait=1, warmup=1, active=PASSES, repeat=1),
            on_trace_ready=lambda profiler: write_trace(profiler, folder / name, name),
            acc_events=True,
        ) as profiler,
    ):
        for _ in range(2 + PASSES):
            with record_function("tokensearch.pass"):
                model(images)
            profiler.step()


def test_a_trace_takes_the_place_of_earlier_ones_of_its_worker_alone(tmp_path: Path) -> None:
    (tmp_path / "vit").mkdir()
    for name in ("vit.1.pt.trace.json.gz", "vit2.1.pt.trace.json.gz", "notes.txt"):
        (tmp_path / "vit" / name).write_text("earlier")

    write_profile(tmp_path, "vit", nn.Linear(32, 32))

    left = sorted(path.name for path in (tmp_path / "vit").iterdir())
    assert [name.split(".")[0] for name in left] == ["notes", "vit", "vit2"]
    assert "vit.1.pt.trace.json.gz" not in left


def test_a_trace_that_is_cut_short_on_its_way_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(folder: str, worker: str, *, use_gzip: bool) -> Callable[[torch_profile], None]:
        trace = gzip.compress(b'{"traceEvents": [')
        return lambda _: (Path(folder) / f"{worker}.1.pt.trace.json.gz").write_bytes(trace)  # type: ignore[return-value]

    monkeypatch.setattr("tokensearch.measure.tensorboard.tensorboard_trace_handler", half)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with pytest.raises(MeasurementError, match=f"cannot be kept in {tmp_path} for a moment"):
        write_profile(tmp_path / "traces", "vit", nn.Linear(32, 32))

    assert list(tmp_path.iterdir()) == []


def write_gpu_trace(folder: Path, name: str) -> None:
    """What torch writes of one operator with one kernel, inside one range."""
    host, device = {"ph": "X", "pid": 100, "tid": 100}, {"ph": "X", "pid": 0, "tid": 7}
    range_, op, step = {"External id": 2}, {"External id": 3}, {"External id": 1}
    launch = op | {"correlation": 9}
    kernel = launch | {"device": 0, "stream": 7, "grid": [8, 1, 1], "block": [64, 1, 1]}
    rows: list[tuple[dict[str, Any], str, str, int, int, dict[str, Any]]] = [
        (host, "user_annotation", "ProfilerStep#2", 0, 100, step),
        (host, "user_annotation", "tokensearch.block.0", 10, 50, range_),
        (host, "cpu_op", "aten::mm", 20, 20, op),
        (host, "cuda_runtime", "cudaLaunchKernel", 30, 5, launch),
        (device, "gpu_user_annotation", "ProfilerStep#2", 50, 40, step),
        (device, "gpu_user_annotation", "tokensearch.block.0", 50, 40, range_),
        (device, "kernel", "gemm", 50, 40, kernel),
    ]
    events = [
        place | {"cat": cat, "name": name, "ts": ts, "dur": dur, "args": args}
        for place, cat, name, ts, dur, args in rows
    ]
    trace = {"schemaVersion": 1, "deviceProperties": [], "traceEvents": for_plugin(events)}
    (folder / name).mkdir()
    (folder / name / f"{name}.1.pt.trace.json").write_text(json.dumps(trace))


def pairs(node: Any) -> list[tuple[str, str]]:
    """Names of what the diff view draws side by side: it leaves out what is no module call."""
    both = [(child["left"]["name"], child["right"]["name"]) for child in node["children"]]
    return [
        (left.removeprefix("nn.Module: "), right.removeprefix("nn.Module: "))
        for left, right in both
        if left.startswith("nn.Module: ")
    ]


def same(*names: str) -> list[tuple[str, str]]:
    return [(name, name) for name in names]


def test_every_profile_is_a_run_with_one_worker_of_its_name(plugin: Plugin) -> None:
    for run in ("baseline", "candidate"):
        assert plugin.ask("views", run=run) == ["Overview", "Operator", "Trace", "Module"]
        assert plugin.ask("workers", run=run, view="Overview") == [run]
        assert plugin.ask("spans", run=run, worker=run) == ["1"]


def test_the_overview_has_a_step_for_every_pass(plugin: Plugin) -> None:
    steps = plugin.ask_about("baseline", "overview")["steps"]["rows"]

    assert [step[0] for step in steps] == ["2", "3"]


def test_the_operator_view_lists_the_operators_of_all_passes(plugin: Plugin) -> None:
    table = plugin.ask_about("baseline", "operation/table")

    calls = {row["name"]: row["calls"] for row in table["data"]}
    assert calls["aten::scaled_dot_product_attention"] == 2 * PASSES
    assert all(row["host_total_duration"] >= 0 for row in table["data"])


def test_the_module_view_nests_our_ranges_as_they_ran(plugin: Plugin) -> None:
    (whole,) = plugin.ask_about("candidate", "module")["data"]

    assert (whole["name"], whole["occurences"]) == ("tokensearch.pass", PASSES)
    first, second = whole["children"]
    assert (first["name"], second["name"]) == tuple(BLOCKS)
    halves = {f"{second['name']}.attention", f"{second['name']}.mlp"}
    assert {part["name"] for part in second["children"]} == {GATHERING, *halves}


def test_the_trace_view_gets_the_file_that_was_written(plugin: Plugin, folder: Path) -> None:
    (written,) = (folder / "baseline").iterdir()

    shown = plugin.ask_about("baseline", "trace")

    assert shown == json.loads(gzip.decompress(written.read_bytes()))
    assert {*BLOCKS, "aten::addmm"} <= {event["name"] for event in shown["traceEvents"]}


def test_the_diff_view_pairs_the_passes(plugin: Plugin) -> None:
    assert pairs(plugin.diff("baseline", "candidate")) == same(*["tokensearch.pass"] * PASSES)


def test_the_diff_view_pairs_the_blocks_of_a_pass(plugin: Plugin) -> None:
    one_pass = plugin.diff("baseline", "candidate", path="0-0")

    assert pairs(one_pass) == same(*BLOCKS)


def test_the_diff_view_pairs_the_phases_of_a_block(plugin: Plugin) -> None:
    one_pass = plugin.diff("baseline", "candidate", path="0-0")
    (path,) = [
        child["path"] for child in one_pass["children"] if child["left"]["name"].endswith(BLOCKS[1])
    ]

    block = plugin.diff("baseline", "candidate", path=path)

    # What one side alone has is not drawn, so the block needs a range of its own that includes it.
    assert pairs(block) == same(f"{BLOCKS[1]}.attention", f"{BLOCKS[1]}.mlp")


def test_the_diff_view_has_times_and_operators_of_both_sides(plugin: Plugin) -> None:
    root = plugin.diff("baseline", "candidate")

    for node in (root, *root["children"]):
        for side in (node["left"], node["right"]):
            operators = {operator["name"]: operator for operator in side["aggs"]}
            assert side["total_duration"] > 0
            assert operators["aten::addmm"]["host_duration"] > 0


def test_a_kernel_is_shown_and_charged_to_its_operator(plugin: Plugin) -> None:
    assert "Kernel" in plugin.ask("views", run="gpu")
    assert plugin.ask_about("gpu", "kernel")["total"]["rows"] == [["gemm", 40]]
    (operator,) = plugin.ask_about("gpu", "operation/table")["data"]
    assert (operator["name"], operator["device_total_duration"]) == ("aten::mm", 40)


def test_the_diff_view_compares_device_times(plugin: Plugin) -> None:
    node = plugin.diff("gpu", "gpu")

    assert node["left"]["name"] == "nn.Module: tokensearch.block.0"
    assert node["left"]["device_duration"] == node["right"]["device_duration"] == 40


def test_a_step_on_the_device_is_no_step_of_its_own(plugin: Plugin) -> None:
    (step,) = plugin.ask_about("gpu", "overview")["steps"]["rows"]

    assert step[0] == "2"


def test_ranges_of_two_threads_are_not_nested() -> None:
    def span(tid: int, name: str, ts: int, dur: int) -> dict[str, Any]:
        event = {"ph": "X", "cat": "user_annotation", "name": name, "ts": ts, "dur": dur}
        return event | {"pid": 1, "tid": tid}

    events = [span(1, "outer", 0, 9), span(1, "inner", 1, 2), span(2, "other", 1, 2)]

    outer, inner, other = for_plugin(events)[3:]

    assert inner["args"]["Python parent id"] == outer["args"]["Python id"]
    assert "Python parent id" not in outer["args"] | other["args"]
