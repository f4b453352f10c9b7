"""PatchMerger in a model."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tokensearch
from tests.ops.test_merger import published
from tests.policy.learned import random_tensors
from tests.runtime.operators import POLICIES, host
from tests.runtime.test_apply import vit
from tokensearch.errors import PolicyError
from tokensearch.policy import Merger, Policy, RawTensor, Tensors, save
from tokensearch.policy.file import policy_from_json, policy_to_json
from tokensearch.runtime import describe

STEP = Merger(1, 5, "merger", scale=0.3)


def policy_for(model: nn.Module) -> Policy:
    return Policy(describe(model), (STEP,), tensors=random_tensors(24, STEP))


def by_hand(model: nn.Module, images: Tensor, tensors: Tensors) -> Tensor:
    """Two blocks, the published module, and the other two blocks."""
    held = {
        name: torch.frombuffer(bytearray(raw.data), dtype=torch.float32).view(raw.shape).double()
        for name, raw in tensors.by_name.items()
    }
    norm = nn.LayerNorm(24).double()
    norm.weight.data, norm.bias.data = held["merger.norm.weight"], held["merger.norm.bias"]
    x = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
    x = model.blocks[1](model.blocks[0](x))
    prefix = model.num_prefix_tokens
    means = published(x[:, prefix:], held["merger.queries"], norm, STEP.scale)
    x = torch.cat([x[:, :prefix], means], dim=1)
    return model.forward_head(model.norm(model.blocks[3](model.blocks[2](x))))


@pytest.mark.parametrize(
    "changes",
    [{}, {"reg_tokens": 4}, {"class_token": False, "global_pool": "avg"}],
    ids=["class token", "registers", "average"],
)
@torch.inference_mode()
def test_a_merger_between_blocks_is_the_published_module_there(changes: dict[str, object]) -> None:
    model, images = vit(**changes).double(), torch.randn(3, 3, 32, 32).double()
    policy = policy_for(model)
    assert policy.tensors is not None
    expected = by_hand(model, images, policy.tensors)

    logits = tokensearch.apply(model, policy)(images)

    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)


@torch.inference_mode()
def test_a_merger_is_applied_from_its_files_and_removed_without_a_trace(tmp_path: Path) -> None:
    model, images = vit(), torch.randn(2, 3, 32, 32)
    policy, weights, plain = policy_for(model), [*vit().state_dict()], model(images)
    save(policy, tmp_path / "policy.json")

    logits = tokensearch.apply(model, tmp_path / "policy.json")(images)

    assert torch.equal(logits, tokensearch.apply(vit(), policy)(images))
    assert [*model.state_dict()] == weights
    twin = copy.deepcopy(model)
    assert torch.equal(tokensearch.remove(model)(images), plain)
    assert not any("tokensearch" in name for name, _ in model.named_buffers())
    assert torch.equal(twin(images), logits)


@torch.inference_mode()
def test_a_trace_says_which_query_holds_each_patch() -> None:
    model = vit()
    tokensearch.apply(model, policy_for(model))

    sources = tokensearch.trace(model, torch.randn(2, 3, 32, 32))

    assert sources[0].tolist() == [[*range(16)]] * 2
    assert sources[1].shape == (2, 16)
    assert 0 <= int(sources[3].min()) <= int(sources[3].max()) < STEP.keep


def test_gradients_reach_the_queries() -> None:
    model = tokensearch.apply(vit(), policy_for(vit()))
    queries = next(value for name, value in model.named_buffers() if name.endswith("queries"))
    queries.requires_grad_()

    model(torch.randn(2, 3, 32, 32)).sum().backward()

    assert queries.grad is not None
    assert queries.grad.abs().sum() > 0


def test_a_policy_without_its_numbers_leaves_the_model_as_it_is() -> None:
    model = tokensearch.apply(host(), POLICIES["pool bipartite"])
    apart = policy_from_json(policy_to_json(policy_for(vit(depth=2))))

    with pytest.raises(PolicyError, match="was read without its tensors file"):
        tokensearch.apply(model, apart)

    assert tokensearch.runtime.policy_of(model) == POLICIES["pool bipartite"]


def test_tensors_that_are_not_finite_are_refused() -> None:
    policy = policy_for(vit())
    assert policy.tensors is not None
    held = dict(policy.tensors.by_name)
    held["merger.norm.bias"] = RawTensor("F32", (24,), b"\xff" * 96)  # not a number

    with pytest.raises(PolicyError, match="holds what is not finite"):
        tokensearch.apply(vit(), Policy(policy.model, policy.steps, tensors=Tensors.pack(held)))
