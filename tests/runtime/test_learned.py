"""Learned scores and metrics: Cropr's and DTEM's inference."""

import pytest
import torch
from timm.models.vision_transformer import ResPostBlock
from torch import Tensor, nn

import tokensearch
from tests.policy.learned import random_tensors
from tests.runtime.test_apply import vit
from tokensearch.errors import ModelError, PolicyError
from tokensearch.policy import Policy, Pool, Prune, RawTensor, Step, Tensors
from tokensearch.runtime import describe, policy_of
from tokensearch.runtime.learned import make_buffers, read_tensors


def raw(tensor: Tensor) -> RawTensor:
    return RawTensor("F64", tuple(tensor.shape), tensor.detach().numpy().tobytes())


@pytest.mark.parametrize("match", ["bipartite", "energy"])
@torch.inference_mode()
def test_a_metric_that_learned_the_mean_key_merges_as_keys_do(match: str) -> None:
    model, images = vit(reg_tokens=2).double(), torch.randn(3, 3, 32, 32).double()
    plain: list[Step] = [Pool(0, 12, match), Pool(2, 8, match)]  # type: ignore[arg-type]
    expected = tokensearch.apply(model, Policy(describe(model), tuple(plain)))(images)
    learned, held = [], {}
    for pool in plain:
        attn = model.blocks[pool.block].attn
        weight, bias = attn.qkv.weight.chunk(3)[1], attn.qkv.bias.chunk(3)[1]
        held[f"m{pool.block}.weight"] = raw(weight.view(3, 8, 24).mean(0))
        held[f"m{pool.block}.bias"] = raw(bias.view(3, 8).mean(0))
        name = f"m{pool.block}"
        learned.append(Pool(pool.block, pool.keep, match, metric="learned", tensors=name))

    policy = Policy(describe(model), tuple(learned), tensors=Tensors.pack(held))
    logits = tokensearch.apply(model, policy)(images)

    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)


@torch.inference_mode()
def test_a_learned_score_keeps_what_points_along_the_query() -> None:
    model, images = vit().double(), torch.randn(3, 3, 32, 32).double()
    query = torch.randn(24).double()
    x = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
    x = model.blocks[1](model.blocks[0](x))
    best = (x[:, 1:] @ query).topk(6, dim=1).indices + 1
    x = torch.cat([x[:, :1], x.gather(1, best[..., None].expand(-1, -1, 24))], dim=1)
    expected = model.forward_head(model.norm(model.blocks[3](model.blocks[2](x))))

    step = Prune(1, 6, "learned", at="block_end", tensors="score")
    tensors = Tensors.pack({"score.query": raw(query)})
    logits = tokensearch.apply(model, Policy(describe(model), (step,), tensors=tensors))(images)

    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Prune(1, 6, "learned"), "prune at block 1 has learned something but names no tensors"),
        (Prune(1, 6, tensors="a"), "prune at block 1 names tensors in vain"),
        (Pool(1, 8, "kmeans", metric="learned", tensors="a"), "only the matches bipartite, "),
        (Prune(1, 6, "learned", "fuse", tensors="a"), "fuses the discarded by learned scores"),
        (Pool(1, 8, "ranked", "learned"), "scores by 'learned'"),
    ],
)
def test_what_is_learned_has_tensors_and_a_use(step: Step, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Policy(describe(vit()), (step,), tensors=random_tensors(24, step))


def test_a_metric_needs_the_norm_that_attention_reads() -> None:
    model = vit(block_fn=ResPostBlock)
    step = Pool(1, 8, metric="learned", tensors="a")

    with pytest.raises(ModelError, match="has no norm before its attention"):
        tokensearch.apply(model, Policy(describe(model), (step,), tensors=random_tensors(24, step)))


def test_what_is_learned_has_the_type_of_norms_where_weights_are_integers() -> None:
    block = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)).half()
    block[0].weight = nn.Parameter(torch.ones(4, 4, dtype=torch.int8), requires_grad=False)
    step = Prune(0, 9, "learned", tensors="a")
    tensors = read_tensors(Policy(describe(vit()), (step,), tensors=random_tensors(24, step)))

    (buffer,) = make_buffers(block, (step,), tensors).values()

    torch.testing.assert_close(buffer, tensors["a.query"].half())


def test_a_device_without_room_for_what_is_learned_leaves_the_model_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, step = vit(), Prune(0, 9, "learned", tensors="a")
    policy = Policy(describe(model), (step,), tensors=random_tensors(24, step))

    def no_room(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr("tokensearch.runtime.attach.make_buffers", no_room)
    with pytest.raises(torch.OutOfMemoryError):
        tokensearch.apply(model, policy)

    assert policy_of(model) is None
    assert [name for name, part in model.named_modules() if "forward" in vars(part)] == []
