"""Exported files as backends: timed as what torch runs is timed."""

from collections.abc import Iterator
from importlib.metadata import version

import pytest
import torch

from tests.search import tiny
from tokensearch import runtime
from tokensearch.errors import ExportError, ModelError, PolicyError
from tokensearch.evaluation.latency import PolicyTimer
from tokensearch.export import check_exported, exported, prepare_backend
from tokensearch.measure import TimingBudget, describe_cell
from tokensearch.measure.resolve_cell import check_named
from tokensearch.policy import Policy, Prune, Threshold
from tokensearch.records.measurements import EXPORTED, Backend
from tokensearch.runtime import describe

CPU, FLOAT = torch.device("cpu"), torch.float32


@pytest.fixture(params=EXPORTED)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A backend whose library is here."""
    pytest.importorskip("onnxscript", reason="exports need the extra export")
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    return request.param


def half() -> Policy:
    return Policy(describe(tiny.model()), (Prune(1, 8),))


@pytest.mark.long
def test_a_file_gives_what_the_model_gives(backend: Backend) -> None:
    model, images = runtime.apply(tiny.model(), half()), torch.randn(2, 3, 32, 32)

    with torch.inference_mode():
        run = prepare_backend(model, backend, images)
        torch.testing.assert_close(run(images), model(images), rtol=1e-3, atol=1e-4)


@pytest.mark.long
def test_what_openvino_gives_is_held_against_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript", reason="exports need the extra export")
    model, images = tiny.model(), torch.randn(2, 3, 32, 32)
    monkeypatch.setattr(exported, "check_exported", lambda *_: None)
    monkeypatch.setattr(exported, "_load", lambda *_: lambda images: model(images) + 1)

    with torch.inference_mode(), pytest.raises(ExportError, match="off the model's by 1"):
        prepare_backend(model, "openvino", images)


@pytest.mark.long
def test_a_policy_is_timed_in_turn_with_the_exported_baseline(backend: Backend) -> None:
    model, images = tiny.model(), torch.randn(2, 3, 32, 32)
    cell = describe_cell(CPU, FLOAT, batch=2, resolution=32, backend=backend)
    timer = PolicyTimer(model, images, cell, seed=0)

    compared = timer.time(half(), TimingBudget(warmup=1, min_rounds=2, max_rounds=5, seconds=1.0))

    assert len(compared.baseline.passes_ms) == len(compared.candidate.passes_ms) > 0


def test_a_cell_has_the_version_of_the_library_that_runs_the_model() -> None:
    pytest.importorskip("onnxruntime", reason="it is not installed")

    def versions(backend: Backend) -> dict[str, str]:
        cell = describe_cell(CPU, FLOAT, batch=2, resolution=32, backend=backend)
        assert cell.backend == backend
        return dict(cell.machine.versions)

    assert versions("onnxruntime")["onnxruntime"] == version("onnxruntime")
    assert "onnxruntime" not in versions("eager")


def test_what_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokensearch.export.exported.find_spec", lambda name: None)

    with pytest.raises(
        ExportError, match=r"needs .*openvino; pip install 'tokensearch\[openvino\]'"
    ):
        check_named("openvino", CPU, FLOAT)


@pytest.mark.parametrize(
    ("device", "dtype", "said"),
    [
        ("cuda", torch.float32, "give --device cpu"),
        ("cpu", torch.bfloat16, "not bfloat16"),
    ],
)
def test_what_the_library_cannot_do_is_refused_first(
    device: str, dtype: torch.dtype, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokensearch.export.exported.find_spec", lambda name: name)

    with pytest.raises(ExportError, match=said):
        check_exported("onnxruntime", torch.device(device), dtype)


def test_counts_that_differ_cannot_be_exported() -> None:
    model = tiny.model()
    runtime.apply(model, Policy(describe(model), (Threshold(1, 8, 0.01),), counts="per_image"))

    with pytest.raises(PolicyError, match="backend onnxruntime"):
        prepare_backend(model, "onnxruntime", torch.randn(2, 3, 32, 32))


def test_the_runtime_alone_says_who_runs_files() -> None:
    with pytest.raises(ModelError, match="prepare_backend"):
        runtime.with_backend(tiny.model(), "onnxruntime", torch.randn(2, 3, 32, 32))
