"""A model that is searched answers the same twice."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.search import tiny
from tokensearch.accuracy.determinism import check_steady
from tokensearch.errors import ModelError

IMAGES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def refusal(model: nn.Module) -> str:
    with pytest.raises(ModelError) as caught:
        check_steady(model, IMAGES, name="mine")
    return str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_that_answers_the_same_twice_is_taken(dtype: torch.dtype) -> None:
    check_steady(tiny.model().to(dtype), IMAGES.to(dtype), name="mine")


def test_dropout_that_was_left_on_is_found() -> None:
    model: Any = tiny.model()
    model.head_drop.forward = lambda x: F.dropout(x, 0.1)  # on by default, whatever the mode

    said = refusal(model)

    assert said.startswith("model mine does not answer the same twice: between two passes of the ")
    assert "model.eval()" in said


def test_noise_in_the_head_is_found() -> None:
    model: Any = tiny.model()
    model.head.register_forward_hook(lambda _, args, out: out + 1e-3 * torch.randn_like(out))

    assert "does not answer the same twice" in refusal(model)


def test_batch_statistics_are_found() -> None:
    model: Any = tiny.model()

    def normalised(x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, training=True)

    model.fc_norm.forward = normalised

    assert refusal(model).startswith(
        "model mine answers about an image by what else is in the batch: "
    )


def test_rounding_is_no_reason_to_refuse() -> None:
    model: Any = tiny.model()
    spread = float(model(IMAGES).detach().std())
    model.head.register_forward_hook(
        lambda _, args, out: out + 1e-6 * spread * torch.randn_like(out)
    )

    check_steady(model, IMAGES, name="mine")
