import pytest
import timm
import torch

import tokensearch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

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
