"""Backends on a tiny model. Only one test runs torch's own compiler, which takes its time."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import tokensearch
from tests.runtime.compilers import Counting
from tests.runtime.operators import POLICIES, host, proportional
from tests.runtime.test_apply import mixed, pictures, vit
from tokensearch.errors import ModelError
from tokensearch.policy import Prune
from tokensearch.runtime import backed, check_backend
from tokensearch.runtime.backends import _Captured


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def batches(count: int) -> list[Tensor]:
    return [
        torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(n)) for n in range(count)
    ]


@pytest.mark.parametrize("name", POLICIES)
def test_every_operator_is_one_graph_for_all_batches(name: str) -> None:
    model, compiler = tokensearch.apply(host(), POLICIES[name]), Counting()
    first, *others = batches(3)

    run = backed(model, "compile", first, compiler=compiler)

    for images in (first, *others):
        torch.testing.assert_close(run(images), model(images), rtol=0, atol=0)
    assert compiler.graphs == 1


def test_a_model_for_dense_use_is_one_graph() -> None:
    model, compiler = tokensearch.apply(vit(), mixed(vit()), dense=True), Counting()
    images = pictures(model)

    run = backed(model, "compile", images, compiler=compiler)

    assert torch.equal(run(images), model(images))
    assert compiler.graphs == 1


def test_torchs_own_compiler_works_here() -> None:
    check_backend("compile", torch.device("cpu"))


@pytest.mark.slow
def test_torchs_own_compiler_gives_the_answers_of_eager() -> None:
    model = tokensearch.apply(vit(), mixed(vit()))
    images = pictures(model)

    run = backed(model, "compile", images)

    torch.testing.assert_close(run(images), model(images), rtol=1e-4, atol=1e-5)


def test_more_candidates_than_the_compiler_bears_for_one_model_are_compiled_once_each() -> None:
    baseline, candidate, compiler = host(), host(), Counting()
    images = pictures(baseline)
    first = backed(baseline, "compile", images, compiler=compiler)

    for keep in range(4, 13):
        with tokensearch.applied(candidate, proportional(Prune(0, keep))) as model:
            run = backed(model, "compile", images, compiler=compiler)
            made = compiler.graphs
            for _ in range(2):  # in turn, as a timing does
                assert torch.equal(first(images), baseline(images))
                assert torch.equal(run(images), model(images))
            assert compiler.graphs == made

    assert compiler.graphs == 10


def test_eager_is_the_model_itself() -> None:
    model = vit()

    assert backed(model, "eager", pictures(model)) is model


def test_what_cannot_be_compiled_is_one_sentence() -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no C++ compiler\nand a long story")

    with pytest.raises(ModelError) as raised:
        backed(vit(), "compile", pictures(vit()), compiler=broken)

    message = str(raised.value)
    assert message.startswith("a VisionTransformer cannot be compiled here: ")
    assert "no C++ compiler" in message
    assert "\n" not in message


def test_a_graph_without_a_gpu_is_refused() -> None:
    with pytest.raises(ModelError) as raised:
        check_backend("cudagraph", torch.device("cpu"))

    assert str(raised.value) == ("backend cudagraph needs an NVIDIA GPU; the images are on cpu")


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
