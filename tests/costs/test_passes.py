from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from tests.costs.machine import CELL
from tests.measure.gpu import FakeGpu, installed
from tokensearch.costs.passes import ModelPasses
from tokensearch.costs.sweep import make_design, sweep
from tokensearch.errors import MeasurementError
from tokensearch.policy import Policy, Prune
from tokensearch.runtime import describe


def tiny(**settings: object) -> VisionTransformer:
    geometry = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}
    return VisionTransformer(**{**geometry, **settings}).eval()  # type: ignore[arg-type]


IMAGES = torch.zeros(2, 3, 32, 32)


def test_a_model_is_swept_and_left_as_it_was() -> None:
    model = tiny()
    before = model(IMAGES)

    table = sweep(model, images=IMAGES, cell=CELL, seconds=1.0)

    assert torch.equal(model(IMAGES), before)
    assert table.model == describe(model)
    assert table.curve("attention").counts[-1] == 16
    assert table.predict(Policy(describe(model), (Prune(1, 8),))) > 0


def test_a_split_pass_holds_the_phases_that_a_sweep_asks_for() -> None:
    model = tiny()
    passes = ModelPasses(model, IMAGES, CELL)

    with torch.inference_mode():
        parts = passes.split_ms(Policy(describe(model), (Prune(1, 8),)), floor=False)

    phases = {phase for block, phase in parts if block == 1}
    assert phases == {"bias", "attention", "scoring", "selecting", "gathering", "mlp"}


def test_without_a_class_token_no_score_reads_one() -> None:
    design = make_design(tiny(class_token=False, global_pool="avg"))

    assert list(design.scores) == ["mean_attention", "random"]
    assert "prune_or_pool" not in design.operators
    assert not design.prefix_only


@pytest.mark.parametrize("change", [{"backend": "compile"}, {"cache": "flushed"}])
def test_passes_that_cannot_be_split_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(MeasurementError, match="takes eager or cudagraph and warm caches"):
        sweep(tiny(), images=IMAGES, cell=replace(CELL, **change), seconds=1.0)


def test_an_unknown_operator_is_refused_with_the_known_ones() -> None:
    with pytest.raises(MeasurementError, match="operator 'pool squares' is unknown; known are"):
        sweep(tiny(), images=IMAGES, cell=CELL, operators=["pool squares"])


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    """A machine that is launch-bound, and whose borders cost as much as its kernels."""
    one = FakeGpu(border_ms=(0.003, 0.003), node_ms=0.002)
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *shape, device=None, **own: zeros(*shape, **own))
    monkeypatch.setattr("tokensearch.costs.passes.perf_counter", lambda: one.host / 1000)
    with torch.inference_mode(), installed(one, monkeypatch):
        yield one


def test_the_parts_of_a_replay_add_up_to_a_plain_one(gpu: FakeGpu) -> None:
    model = tiny()
    passes = ModelPasses(model, IMAGES, replace(CELL, device="cuda", backend="cudagraph"))
    for policy in (Policy(describe(model)), Policy(describe(model), (Prune(1, 8),))):
        whole_ms = passes.whole_ms(policy)
        parts_ms = passes.split_ms(policy, floor=False)

        assert passes.queue is None
        assert sum(parts_ms.values()) == pytest.approx(whole_ms, rel=0.02)
        assert {0, 1, 2} <= {block for block, _ in parts_ms}


def test_the_parts_of_an_eager_pass_hold_no_launches(gpu: FakeGpu) -> None:
    """Every launch takes 5 us of the host, and its kernel 2 us of the device."""
    model = tiny()
    passes = ModelPasses(model, IMAGES, replace(CELL, device="cuda"))
    for policy in (Policy(describe(model)), Policy(describe(model), (Prune(1, 8),))):
        enqueued_ms, whole_ms = passes.enqueue_ms(policy), passes.whole_ms(policy)
        parts_ms = passes.split_ms(policy, floor=False)

        assert enqueued_ms == pytest.approx(whole_ms, rel=0.02)
        assert sum(parts_ms.values()) == pytest.approx(2 / 5 * whole_ms, rel=0.05)
        assert {0, 1, 2} <= {block for block, _ in parts_ms}


def test_a_launch_bound_model_is_swept_by_what_its_launches_take(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokensearch.costs.sweep.QUEUED_TRIALS", 6)
    cell = replace(CELL, device="cuda")

    table = sweep(tiny(), images=IMAGES, cell=cell, seconds=0.01, operators=["prune drop"])

    assert table.launches is not None
    assert table.predict(Policy(table.model)) == pytest.approx(table.baseline_ms, rel=0.03)
    assert table.ratio(Policy(table.model, (Prune(0, 4),))) > 1  # more operators


def test_a_model_is_swept_by_replays(gpu: FakeGpu) -> None:
    cell = replace(CELL, device="cuda", backend="cudagraph")

    table = sweep(tiny(), images=IMAGES, cell=cell, seconds=0.1)

    assert table.cell == cell
    whole = Policy(table.model)
    assert table.predict(Policy(table.model, (Prune(0, 4),))) > 0
    assert table.predict(whole) == pytest.approx(table.baseline_ms, rel=0.2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_real_gpu_splits_its_replays() -> None:
    model = tiny().cuda()
    cell = replace(CELL, device="cuda", backend="cudagraph")
    policy = Policy(describe(model), (Prune(1, 8),))
    with torch.inference_mode():
        passes = ModelPasses(model, IMAGES.cuda(), cell)
        parts_ms, whole_ms = passes.split_ms(policy, floor=False), passes.whole_ms(policy)

    assert {0, 1, 2} <= {block for block, _ in parts_ms}
    assert sum(parts_ms.values()) > 0
    assert whole_ms > 0
