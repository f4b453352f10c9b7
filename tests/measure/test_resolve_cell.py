"""What devices, number types and backends are called, on machines that are not at hand."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.cells import CELL, ON_GPU
from tests.search.tiny import model as tiny
from tokensearch.cli.commands.run import _folder
from tokensearch.cli.profile_inputs import ProfileOptions
from tokensearch.cli.timing_subject import CellOverrides
from tokensearch.errors import MeasurementError, ModelError
from tokensearch.measure import resolve_cell
from tokensearch.measure.machine import device_name
from tokensearch.measure.resolve_cell import (
    check_named,
    device_slug,
    name_cell,
    resolve_backend,
    resolve_device,
    resolve_dtype,
)
from tokensearch.policy import parse_target
from tokensearch.policy.answer import Goal
from tokensearch.runtime import backends

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a machine of so many GPUs, of which torch uses the last; return which was set."""

    def made(count: int) -> list[int]:
        chosen = [count - 1]
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: chosen[-1])
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
        return chosen

    return made


@pytest.mark.parametrize(
    ("name", "count", "index"),
    [("auto", 1, 0), ("cuda", 1, 0), ("cuda:0", 1, 0), ("cuda", 3, 2), ("cuda:1", 3, 1)],
)
def test_a_gpu_is_found_by_its_name_and_becomes_the_current_one(
    gpus: Any, name: str, count: int, index: int
) -> None:
    chosen = gpus(count)

    assert resolve_device(name) == torch.device("cuda", index)
    assert chosen[-1] == index


@pytest.mark.parametrize(("name", "count"), [("auto", 0), ("cpu", 0), ("cpu", 2)])
def test_a_cpu_is_what_auto_means_without_a_gpu(gpus: Any, name: str, count: int) -> None:
    gpus(count)

    assert resolve_device(name) == CPU


@pytest.mark.parametrize(
    ("name", "count", "here"),
    [
        ("cuda", 0, "cpu"),
        ("cuda:1", 1, "cpu, cuda"),
        ("cuda:2", 2, "cpu, cuda:0, cuda:1"),
        ("tpu", 2, "cpu, cuda:0, cuda:1"),
        ("cuda:-1", 1, "cpu, cuda"),
    ],
)
def test_a_device_that_is_not_there_is_one_sentence_naming_those_that_are(
    gpus: Any, name: str, count: int, here: str
) -> None:
    gpus(count)

    with pytest.raises(MeasurementError) as raised:
        resolve_device(name)

    assert str(raised.value) == f"device {name!r} is not on this machine; it has {here}"


@pytest.mark.parametrize(
    ("device", "count", "name"),
    [
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda"),
        ("cuda:0", 1, "cuda"),
        ("cuda", 2, "cuda:1"),
        ("cuda:0", 2, "cuda:0"),
    ],
)
def test_a_cell_tells_gpus_apart_where_there_are_several(
    gpus: Any, device: str, count: int, name: str
) -> None:
    gpus(count)

    assert device_name(torch.device(device)) == name


@pytest.mark.parametrize(("compute", "dtype"), [("own", "bfloat16"), ("emulated", "float16")])
def test_a_gpu_gets_half_precision_that_it_computes_itself(
    monkeypatch: pytest.MonkeyPatch, compute: str, dtype: str
) -> None:
    def supported(*, including_emulation: bool) -> bool:
        return including_emulation or compute == "own"

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)

    assert resolve_dtype("auto", GPU) == dtype
    assert resolve_dtype("float32", GPU) == "float32"


def test_a_cpu_gets_float32_unless_told_otherwise() -> None:
    assert resolve_dtype("auto", CPU) == "float32"
    assert resolve_dtype("bfloat16", CPU) == "bfloat16"


def test_an_unknown_number_type_is_one_sentence() -> None:
    with pytest.raises(MeasurementError) as raised:
        resolve_dtype("int8", CPU)

    assert str(raised.value) == (
        "number type 'int8' is unknown; known are float32, float16, bfloat16"
    )


def test_a_backend_that_was_named_is_tried_and_auto_is_not() -> None:
    check_named("auto", CPU, torch.float32)
    with pytest.raises(ModelError, match="needs an NVIDIA GPU"):
        check_named("cudagraph", CPU, torch.float32)


IMAGES: Any = SimpleNamespace(device=GPU)  # which nothing here computes with


def test_on_a_gpu_a_model_that_can_be_captured_is_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []
    monkeypatch.setattr(backends, "with_backend", lambda *how: tried.append(how[1]))

    chosen, why = resolve_backend("auto", nn.Identity(), IMAGES)

    assert (chosen, tried) == ("cudagraph", ["cudagraph"])
    assert why == "--backend auto is cudagraph here, since the model could be captured"


def test_on_a_gpu_a_model_that_cannot_be_captured_is_eager_and_it_is_said_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object) -> None:
        raise ModelError("a Net cannot be captured as a CUDA graph: it waits for its host")

    monkeypatch.setattr(backends, "with_backend", refused)

    assert resolve_backend("auto", nn.Identity(), IMAGES) == (
        "eager",
        "--backend auto is eager here: a Net cannot be captured as a CUDA graph: it waits for its "
        "host",
    )


def test_on_a_cpu_auto_is_eager_without_a_word() -> None:
    assert resolve_backend("auto", tiny(), torch.zeros(1, 3, 32, 32)) == ("eager", "")


def test_a_backend_that_was_named_stays() -> None:
    assert resolve_backend("compile", nn.Identity(), IMAGES) == ("compile", "")


def test_a_cell_is_named_with_its_gpu() -> None:
    cell = replace(ON_GPU, device="cuda:1", backend="cudagraph")

    assert name_cell(cell) == "cuda:1 (Example GPU), float16, batch 8, cudagraph"
    assert name_cell(replace(cell, kernels="triton")) == name_cell(cell)
    assert name_cell(replace(cell, kernels="torch")).endswith(
        "cudagraph, token operators not fused"
    )
    assert device_slug(cell) == "cuda1"


def test_a_run_folder_has_no_colon_of_its_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    cell, target = replace(CELL, device="cuda:1"), Goal(parse_target("0.5x"))

    assert _folder("demo", cell, target, None).path == Path("runs/demo-cuda1-0.5x")
    graph = replace(cell, backend="cudagraph")
    assert _folder("demo", graph, target, None).path == Path("runs/demo-cuda1-cudagraph-0.5x")


def test_what_is_profiled_is_in_a_cell_of_resolved_names() -> None:
    ready = ProfileOptions(model="tests.search.tiny:model", device="cpu", batch_size=2).timed()

    assert (ready.cell.dtype, ready.cell.backend) == ("float32", "eager")
    assert ready.images.dtype == torch.float32


def test_what_was_replayed_on_a_gpu_runs_eagerly_on_a_cpu() -> None:
    ready = CellOverrides(device="cpu").timed(
        "tests.search.tiny:model",
        device="cuda",
        dtype="float32",
        batch=2,
        backend="cudagraph",
        seed=0,
    )

    assert (ready.cell.device, ready.cell.backend) == ("cpu", "eager")
    assert resolve_cell.name_cell(ready.cell) == "cpu, float32, batch 2, eager"
