"""Thresholds that learn: what masks compute is what dropping computes, and has derivatives."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.ops import noise
from tests.runtime.test_apply import vit
from tokensearch import ops
from tokensearch.errors import ModelError
from tokensearch.ops import Tokens, mask_above
from tokensearch.policy import Policy, Score, Threshold
from tokensearch.runtime import (
    applied,
    apply,
    choosing_thresholds,
    count_tokens,
    describe,
    learning_masks,
)

HOSTS: dict[str, Callable[[], nn.Module]] = {
    "class token": vit,
    "mean of all tokens": lambda: vit(class_token=False, global_pool="avg"),
    "registers and q/k-norm": lambda: vit(reg_tokens=4, no_embed_class=True, qk_norm=True),
}


class Learner:
    """Thresholds as parameters; keeps what is left."""

    def __init__(self, policy: Policy) -> None:
        self.logs = {
            step.block: torch.tensor(step.threshold, dtype=torch.float64).log().requires_grad_()
            for step in policy.steps
            if isinstance(step, Threshold)
        }
        self.sizes: dict[int, Tensor] = {}

    def mask(
        self, step: Threshold, tokens: Tokens, score: Tensor, *, prefix: int, least: int
    ) -> Tokens:
        threshold = self.logs[step.block].exp()
        masked = mask_above(
            tokens, score, threshold=threshold, temperature=0.1, prefix=prefix, least=least
        )
        assert masked.size is not None
        self.sizes[step.block] = masked.size
        return masked


def medians(model: nn.Module, score: Score, images: Tensor) -> Policy:
    """A policy that keeps about half of the tokens at two sites."""
    found: dict[int, float] = {}

    def choose(step: Threshold, scores: Tensor) -> float:
        found[step.block] = scores.quantile(0.45).item()
        return found[step.block]

    start = Policy(
        describe(model), tuple(Threshold(b, 8, 1.0, score) for b in (0, 2)), counts="per_image"
    )
    with torch.no_grad(), applied(model, start), choosing_thresholds(model, choose):
        model(images)
    steps = tuple(Threshold(block, 8, value, score) for block, value in found.items())
    return Policy(describe(model), steps, counts="per_image")


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("score", ["mean_attention", "shift"])
def test_masked_passes_are_those_that_drop(host: str, score: Score) -> None:
    model = HOSTS[host]().double()
    images = torch.randn(5, 3, 32, 32, dtype=torch.float64)
    policy = medians(model, score, images)
    learner = Learner(policy)

    with applied(model, policy):
        dropped = model(images)
        counts = count_tokens(model, images)
        with learning_masks(model, learner):
            masked = model(images)

    torch.testing.assert_close(masked, dropped, rtol=0, atol=1e-10)
    prefix = policy.model.prefix_tokens
    for block, size in learner.sizes.items():
        assert torch.equal(size[:, prefix:, 0].sum(dim=1).long(), counts[:, block])
    assert 0 < counts[:, 2].sum() < counts[:, 0].sum() < 5 * 16


@pytest.mark.parametrize(
    "score", ["class_attention", "class_attention_value", "head_weighted_class_attention"]
)
def test_masked_passes_score_by_class_attention_as_those_that_drop(score: Score) -> None:
    model, images = vit().double(), torch.randn(4, 3, 32, 32, dtype=torch.float64)
    policy = medians(model, score, images)

    with applied(model, policy):
        dropped = model(images)
        with learning_masks(model, Learner(policy)):
            masked = model(images)

    torch.testing.assert_close(masked, dropped, rtol=0, atol=1e-10)


def test_every_threshold_has_a_derivative_by_outputs_and_by_counts() -> None:
    model, images = vit().double(), torch.randn(4, 3, 32, 32, dtype=torch.float64)
    policy = medians(model, "head_weighted_class_attention", images)
    learner = Learner(policy)

    with learning_masks(apply(model, policy), learner):
        outputs = model(images).square().sum()
        by_outputs = torch.autograd.grad(outputs, learner.logs.values(), retain_graph=True)
        by_counts = torch.autograd.grad(learner.sizes[2].sum(), learner.logs.values())

    assert all(value.isfinite() and value != 0 for value in by_outputs)
    assert all(value < 0 for value in by_counts)  # higher thresholds leave fewer


def test_a_model_without_thresholds_has_none_that_learn() -> None:
    model = vit()
    policy = medians(model, "shift", torch.randn(2, 3, 32, 32))

    with (
        pytest.raises(ModelError, match="follows no policy"),
        learning_masks(model, Learner(policy)),
    ):
        pass


def attention(mask: Tensor, *, loudest: float = 1.0) -> tuple[Tensor, Tensor]:
    """Attention under a mask, and what is added up of it."""
    q, k, v = noise(2, 3, 4, 8), noise(2, 3, 6, 8), noise(2, 3, 6, 8)
    k[:, :, 5] *= loudest
    out = ops.attend_masked(q, k, v, ops.mask_bias(mask), dropout=0.0)
    keep = torch.where(mask.detach() == 0, -torch.inf, 0.0).transpose(1, 2)[:, None]
    return out, F.scaled_dot_product_attention(q, k, v, attn_mask=keep)


def test_attention_under_a_mask_that_learns_is_attention_under_a_mask() -> None:
    mask = torch.tensor([1.0, 1, 0, 1, 1, 0], dtype=torch.float64).expand(2, 6)[..., None]

    out, expected = attention(mask.clone().requires_grad_(), loudest=100.0)

    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


def test_the_derivative_by_a_key_that_is_left_out_has_a_bound() -> None:
    mask = torch.tensor([1.0, 1, 0, 1, 1, 0], dtype=torch.float64).expand(2, 6)[..., None]
    values = noise(2, 3, 6, 8)
    reach = 3 * 4 * 8 * 2 * float(values.abs().max()) * 1.01  # heads x queries x features

    for loudest in (1.0, 1e3):
        learning = mask.clone().requires_grad_()
        out, _ = attention(learning, loudest=loudest)
        (gradient,) = torch.autograd.grad(out.sum(), learning)
        assert gradient[:, 5].abs().max() > 0
        assert gradient.abs().max() < reach


def test_the_derivative_by_a_key_that_is_there_is_that_of_its_logit() -> None:
    learning = torch.ones(2, 6, 1, dtype=torch.float64).requires_grad_()
    out, _ = attention(learning)
    (by_mask,) = torch.autograd.grad(out.square().sum(), learning)
    q, k, v = noise(2, 3, 4, 8), noise(2, 3, 6, 8), noise(2, 3, 6, 8)
    bias = torch.zeros(2, 1, 1, 6, dtype=torch.float64).requires_grad_()
    plain = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    (by_logit,) = torch.autograd.grad(plain.square().sum(), bias)

    torch.testing.assert_close(by_mask[..., 0], by_logit[:, 0, 0], rtol=0, atol=1e-12)


def test_the_best_token_is_left_where_an_image_must_keep_one() -> None:
    tokens = Tokens(noise(2, 4, 3))
    score = torch.tensor([[1.0, 3, 2, 0], [4, 0, 0, 0]], dtype=torch.float64)

    masked = ops.mask_above(
        tokens, score, threshold=torch.tensor(9.0), temperature=0.1, prefix=0, least=1
    )

    assert masked.size is not None
    assert masked.size[..., 0].tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
