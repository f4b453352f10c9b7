"""A capture that fails. In a file of its own, which comes after all others that capture.

Torch does not say in what state its allocator and its default generator are left by it.
"""

import pytest
import torch
from torch import nn

from tests.search.tiny import model as tiny
from tokensearch.runtime import choose_backend

pytestmark = pytest.mark.gpu


class Reading(nn.Module):
    """Asks what is in its batch, which no capture knows yet."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum().item() > 0 else -x


def test_a_plain_model_is_captured_and_one_that_reads_its_numbers_is_not() -> None:
    images, stream = torch.ones(1, 3, 32, 32, device="cuda"), torch.cuda.current_stream()

    assert choose_backend(tiny().cuda(), images) == ("cudagraph", None)
    chosen, obstacle = choose_backend(Reading(), images)
    assert chosen == "eager"
    assert obstacle is not None
    assert obstacle.startswith("a Reading cannot be captured as a CUDA graph: ")
    assert torch.cuda.current_stream() == stream
    assert choose_backend(tiny().cuda(), images) == ("cudagraph", None)  # the GPU works on
