"""Backends on a tiny model. Only one test runs torch's own compiler, which takes its time."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import tokensearch
from tests.runtime.compilers import Counting
from tests.runtime.operators import POLICIES, everything, host, proportional
from tests.runtime.test_apply import mixed, pictures, vit
from tokensearch.errors import ModelError
from tokensearch.policy import Prune
from tokensearch.runtime import backends, check_backend, with_backend
from tokensearch.runtime.backends import _Captured


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def batches(count: int, *, pixels: int = 32) -> list[Tensor]:
    seeds = (torch.Generator().manual_seed(number) for number in range(count))
    return [torch.randn(3, 3, pixels, pixels, generator=seed) for seed in seeds]


def check_one_graph(model: nn.Module, first: Tensor, *others: Tensor) -> None:
    """Compiled for `first`, the model answers all batches by one graph, as it does eagerly."""
    compiler = Counting()

    run = with_backend(model, "compile", first, compiler=compiler)

    for images in (first, *others):
        torch.testing.assert_close(run(images), model(images), rtol=0, atol=0)
    assert compiler.graphs == 1


@pytest.mark.long
def test_all_operators_together_are_one_graph_for_all_batches() -> None:
    check_one_graph(everything(), *batches(3, pixels=64))


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_every_operator_is_one_graph_for_all_batches(name: str) -> None:
    check_one_graph(tokensearch.apply(host(), POLICIES[name]), *batches(3))


@pytest.mark.long
def test_a_model_for_dense_use_is_one_graph() -> None:
    model, compiler = tokensearch.apply(vit(), mixed(vit()), dense=True), Counting()
    images = pictures(model)

    run = with_backend(model, "compile", images, compiler=compiler)

    assert torch.equal(run(images), model(images))
    assert compiler.graphs == 1


@pytest.mark.long
def test_torchs_own_compiler_works_here() -> None:
    check_backend("compile", torch.device("cpu"))


@pytest.mark.slow
def test_torchs_own_compiler_gives_the_answers_of_eager() -> None:
    model = tokensearch.apply(vit(), mixed(vit()))
    images = pictures(model)

    run = with_backend(model, "compile", images)

    torch.testing.assert_close(run(images), model(images), rtol=1e-4, atol=1e-5)


@torch._dynamo.config.patch(recompile_limit=2)  # as many for one code object; torch's own is 8
def test_more_candidates_than_the_compiler_bears_for_one_model_are_compiled_once_each() -> None:
    baseline, candidate, compiler = host(), host(), Counting()
    images = pictures(baseline)
    first = with_backend(baseline, "compile", images, compiler=compiler)

    for keep in (4, 8, 12):
        with tokensearch.applied(candidate, proportional(Prune(0, keep))) as model:
            run = with_backend(model, "compile", images, compiler=compiler)
            made = compiler.graphs
            for _ in range(2):  # in turn, as a timing does
                assert torch.equal(first(images), baseline(images))
                assert torch.equal(run(images), model(images))
            assert compiler.graphs == made

    assert compiler.graphs == 4


def test_eager_is_the_model_itself() -> None:
    model = vit()

    assert with_backend(model, "eager", pictures(model)) is model


def test_what_cannot_be_compiled_is_one_sentence() -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no C++ compiler\nand a long story")

    with pytest.raises(ModelError) as raised:
        with_backend(vit(), "compile", pictures(vit()), compiler=broken)

    message = str(raised.value)
    assert message.startswith("a VisionTransformer cannot be compiled here: ")
    assert "no C++ compiler" in message
    assert "\n" not in message


def test_a_graph_without_a_gpu_is_refused() -> None:
    with pytest.raises(ModelError) as raised:
        check_backend("cudagraph", torch.device("cpu"))

    assert str(raised.value) == (
        "backend cudagraph needs an NVIDIA GPU and runs on cpu; take eager or compile"
    )


class OnCpu:
    """What torch.cuda is to a capture, on the CPU; remembers memories and what ran within."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.pools: list[object] = []
        self.streams: list[object] = []
        cuda, stream = torch.cuda, SimpleNamespace(wait_stream=lambda _: None)
        patch.setattr(cuda, "Stream", lambda device: stream)
        patch.setattr(cuda, "current_stream", lambda: stream)
        patch.setattr(cuda, "current_device", lambda: 7)
        patch.setattr(cuda, "device", lambda device: nullcontext())
        patch.setattr(cuda, "stream", lambda stream: nullcontext())
        patch.setattr(cuda, "CUDAGraph", lambda: SimpleNamespace(pool=lambda: "the first's"))
        patch.setattr(cuda, "graph", self.graph)
        backends._side_stream.cache_clear()

    @contextmanager
    def graph(self, graph: object, *, pool: object, stream: object) -> Iterator[None]:
        self.pools.append(pool)
        self.streams.append(stream)
        yield


def test_graphs_use_memory_of_their_own_unless_they_are_given_a_replay_to_share_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, images = OnCpu(monkeypatch), torch.zeros(2, 3)

    first = backends._capture(nn.GELU(), images, None, None)
    backends._capture(nn.GELU(), images, first, None)
    backends._capture(nn.GELU(), images, nn.GELU(), None)  # an eager baseline has none

    assert machine.pools == [None, "the first's", None]
    assert machine.streams[0] is machine.streams[1]
    backends._side_stream.cache_clear()


def test_a_compiled_model_is_captured_as_it_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, compiler = OnCpu(monkeypatch), Counting()
    model, images = vit(), pictures(vit())

    replay = backends._capture(model, images, None, compiler)

    assert isinstance(replay, _Captured)
    assert (compiler.graphs, len(machine.pools)) == (1, 1)
    torch.testing.assert_close(replay.out, model(images))
    backends._side_stream.cache_clear()


def test_a_failed_capture_gives_the_stream_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own leaves its stream only once a capture has ended well (2.11)."""
    OnCpu(monkeypatch)
    before = torch.cuda.current_stream()
    current: list[object] = [before]

    @contextmanager
    def stream(wanted: object) -> Iterator[None]:
        left = current[-1]
        current.append(wanted)
        try:
            yield
        finally:
            current.append(left)

    @contextmanager
    def graph(*_: object, stream: object, **__: object) -> Iterator[None]:
        current.append("the capture's")
        yield
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "graph", graph)

    with pytest.raises(RuntimeError, match="not permitted"):
        backends._capture(nn.GELU(), torch.zeros(2, 3), None, None)

    assert current[-1] is before
    backends._side_stream.cache_clear()


class Replayed:
    """Stands in for a CUDA graph: it adds 1 to what lies in its memory."""

    def __init__(self, images: Tensor, out: Tensor) -> None:
        self.images, self.out = images, out

    def replay(self) -> None:
        self.out.copy_(self.images + 1)


def captured(images: Tensor) -> _Captured:
    out = torch.empty_like(images)
    return _Captured(nn.Identity(), Replayed(images, out), images, out)  # type: ignore[arg-type]


def test_a_replay_copies_the_images_in_and_hands_out_a_copy() -> None:
    run = captured(torch.zeros(2, 3))

    first, second = run(torch.full((2, 3), 1.0)), run(torch.full((2, 3), 5.0))

    assert first.tolist() == [[2.0] * 3] * 2
    assert second.tolist() == [[6.0] * 3] * 2


@pytest.mark.parametrize(
    ("images", "kind"),
    [(torch.zeros(1, 3), "1x3 float32"), (torch.zeros(2, 3).half(), "2x3 float16")],
)
def test_a_replay_refuses_other_images(images: Tensor, kind: str) -> None:
    with pytest.raises(ModelError) as raised:
        captured(torch.zeros(2, 3))(images)

    assert str(raised.value) == (
        f"the CUDA graph was captured for images of 2x3 float32, not of {kind}; capture one for "
        "these"
    )
