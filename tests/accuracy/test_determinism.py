"""A model that is searched is deterministic."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.search import tiny
from tokensearch.accuracy.determinism import check_deterministic
from tokensearch.errors import ModelError, TokensearchWarning

IMAGES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def refusal(model: nn.Module) -> str:
    with pytest.raises(ModelError) as caught:
        check_deterministic(model, IMAGES, name="mine")
    return str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_deterministic_model_is_accepted(dtype: torch.dtype) -> None:
    check_deterministic(tiny.model().to(dtype), IMAGES.to(dtype), name="mine")


def test_dropout_that_was_left_on_is_found() -> None:
    model: Any = tiny.model()
    model.head_drop.forward = lambda x: F.dropout(x, 0.1)  # on by default, whatever the mode

    said = refusal(model)

    assert said.startswith("model mine is not deterministic: between two passes of the ")
    assert "model.eval()" in said


def test_noise_in_the_head_is_found() -> None:
    model: Any = tiny.model()
    model.head.register_forward_hook(lambda _, args, out: out + 1e-3 * torch.randn_like(out))

    assert "is not deterministic" in refusal(model)


def test_batch_statistics_are_found() -> None:
    model: Any = tiny.model()

    def normalised(x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, training=True)

    model.fc_norm.forward = normalised

    assert refusal(model).startswith("model mine depends on the other images of a batch: ")


def test_rounding_is_no_reason_to_refuse() -> None:
    model: Any = tiny.model()
    spread = float(model(IMAGES).detach().std())
    model.head.register_forward_hook(
        lambda _, args, out: out + 1e-6 * spread * torch.randn_like(out)
    )

    check_deterministic(model, IMAGES, name="mine")


def test_a_model_whose_answers_do_not_depend_on_the_image_is_refused() -> None:
    def constant(images: Tensor) -> Tensor:
        return torch.tensor([[1.0, 2.0, 3.0]]).expand(len(images), -1)

    with pytest.raises(ModelError, match="the same outputs for different images"):
        check_deterministic(constant, torch.rand(4, 3, 8, 8), name="m")
    check_deterministic(constant, torch.zeros(4, 3, 8, 8), name="m")  # of equal images it may be


def test_probabilities_in_the_place_of_logits_are_a_caution() -> None:
    model: Any = tiny.model()
    model.head.register_forward_hook(lambda _, args, out: out.softmax(dim=1))

    with pytest.warns(TokensearchWarning, match="model mine returns probabilities where logits"):
        check_deterministic(model, IMAGES, name="mine")
