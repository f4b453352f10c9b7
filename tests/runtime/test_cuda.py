import pytest
import timm
import torch

import tokensearch
from tests.runtime.operators import POLICIES, host
from tokensearch.errors import ModelError
from tokensearch.runtime import with_backend

pytestmark = pytest.mark.gpu

# One of each operator, and what differs from the others in how it is computed.
NAMES = (
    "none",
    "last-cls",
    "tome-r13",
    "ppt-r50",
    "evit-0.7",
    "topk-0.7",
    "pomt-56",
    "diffrate-t-0.8",
    "avgpool-grid",
)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("deit_tiny_patch16_224").eval().cuda()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(0)).cuda()


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_gives_the_same_answers_on_the_gpu_as_on_the_cpu(
    name: str, model: torch.nn.Module, images: torch.Tensor
) -> None:
    double = timm.create_model("deit_tiny_patch16_224").eval().double()
    double.load_state_dict(model.state_dict())

    with torch.inference_mode():
        on_cpu = tokensearch.apply(double, name)(images.cpu().double())
        on_gpu = tokensearch.apply(double.cuda(), name)(images.double())

    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_gives_finite_logits_near_those_of_full_precision(
    name: str, dtype: torch.dtype, model: torch.nn.Module, images: torch.Tensor
) -> None:
    with torch.inference_mode(), tokensearch.applied(model, name):
        full = model(images)
        with torch.autocast("cuda", dtype=dtype):
            half = model(images)

    assert half.isfinite().all()
    # Half precision may choose other tokens, so only the direction of the logits is compared.
    similarity = torch.cosine_similarity(full, half.float(), dim=1)
    assert (similarity > 0.95).all()


def test_two_passes_under_a_policy_are_bit_identical(
    model: torch.nn.Module, images: torch.Tensor
) -> None:
    with torch.inference_mode(), tokensearch.applied(model, "tome-r16"):
        assert torch.equal(model(images), model(images))


def test_remove_restores_the_model_on_the_gpu(model: torch.nn.Module, images: torch.Tensor) -> None:
    with torch.inference_mode():
        before = model(images)
        tokensearch.remove(tokensearch.apply(model, "tome-r13"))

        assert torch.equal(model(images), before)


@pytest.mark.parametrize("name", POLICIES)
def test_every_operator_is_captured_and_replayed(name: str) -> None:
    model = tokensearch.apply(host(), POLICIES[name]).cuda()
    batches = torch.randn(3, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).cuda()

    with torch.inference_mode():
        replay = with_backend(model, "cudagraph", batches[0])

        for images in batches:
            torch.testing.assert_close(replay(images), model(images), rtol=1e-4, atol=1e-5)


def test_a_graph_outlives_the_mode_it_was_captured_in(
    model: torch.nn.Module, images: torch.Tensor
) -> None:
    with torch.inference_mode(), tokensearch.applied(model, "tome-r13"):
        replay, expected = with_backend(model, "cudagraph", images), model(images)

    torch.testing.assert_close(replay(images), expected, rtol=1e-4, atol=1e-4)


def test_a_graph_refuses_another_batch(model: torch.nn.Module, images: torch.Tensor) -> None:
    replay = with_backend(model, "cudagraph", images)

    with pytest.raises(ModelError, match="captured for images of 8x3x224x224 float32, not of 4x3"):
        replay(images[:4])


@pytest.mark.compiles
@pytest.mark.parametrize("name", ["prune by class_attention", "prune then pool ranked"])
def test_a_small_compiled_model_gives_the_answers_of_eager_on_the_gpu(name: str) -> None:
    """Two blocks, which a cold compiler is soon through with, before the twelve of the next."""
    model = tokensearch.apply(host(), POLICIES[name]).cuda()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).cuda()

    with torch.inference_mode():
        run = with_backend(model, "compile", images)

        torch.testing.assert_close(run(images), model(images), rtol=1e-3, atol=1e-4)


@pytest.mark.compiles
@pytest.mark.parametrize("name", ["tome-r13", "evit-0.7"])
def test_compiled_models_give_the_answers_of_eager_on_the_gpu(
    name: str, model: torch.nn.Module, images: torch.Tensor
) -> None:
    with torch.inference_mode(), tokensearch.applied(model, name):
        run = with_backend(model, "compile", images)

        similarity = torch.cosine_similarity(run(images), model(images), dim=1)
    assert (similarity > 0.999).all()  # near-ties may fall otherwise


def test_graphs_that_share_memory_give_their_own_answers(
    model: torch.nn.Module, images: torch.Tensor
) -> None:
    with torch.inference_mode():
        whole = with_backend(model, "cudagraph", images)
        expected = model(images)
        with tokensearch.applied(model, "tome-r13"):
            reduced, theirs = with_backend(model, "cudagraph", images, sharing=whole), model(images)

        for _ in range(2):  # in turn, as a timing does
            torch.testing.assert_close(whole(images), expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(reduced(images), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.compiles
def test_a_compiled_model_is_captured_on_the_gpu(
    model: torch.nn.Module, images: torch.Tensor
) -> None:
    with torch.inference_mode(), tokensearch.applied(model, "tome-r13"):
        replay = with_backend(model, "compile-cudagraph", images)

        similarity = torch.cosine_similarity(replay(images), model(images), dim=1)
    assert (similarity > 0.999).all()  # near-ties may fall otherwise


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_runs_inside_autocast(name: str, dtype: torch.dtype) -> None:
    model = tokensearch.apply(host(), POLICIES[name]).to("cuda", dtype)
    batch = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).cuda()

    with torch.inference_mode(), torch.autocast("cuda", dtype=dtype):
        assert model(batch.to(dtype)).isfinite().all()
