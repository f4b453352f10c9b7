"""What could go wrong around a policy, and must not."""

import copy
import gc
import io
import threading
import weakref

import pytest
import torch
from torch import Tensor, nn

import tokensearch
from tests.runtime.test_apply import mixed, pictures, vit
from tokensearch.errors import ModelError
from tokensearch.ops import Tokens
from tokensearch.policy import Policy, Pool, Prune
from tokensearch.runtime import describe, phase_ranges, policy_of
from tokensearch.runtime.token_state import read_state


def saved_and_loaded(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


@pytest.mark.parametrize("twin_of", [copy.deepcopy, saved_and_loaded])
def test_the_policy_of_a_copy_can_be_removed(twin_of) -> None:  # type: ignore[no-untyped-def]
    host = vit()
    x = pictures(host)

    twin = tokensearch.remove(twin_of(tokensearch.apply(vit(), mixed(host))))

    assert torch.equal(twin(x), host(x))


def gap(**changes: object) -> nn.Module:
    model = vit(global_pool="avg", **changes)
    return tokensearch.apply(model, Policy(describe(model), (Pool(0, 9),)))


@pytest.mark.parametrize("changes", [{"fc_norm": True}, {"fc_norm": False}])
def test_features_are_freed_when_nobody_holds_them(changes: dict[str, bool]) -> None:
    model = gap(**changes)
    seen: list[weakref.ref[Tensor]] = []
    model.blocks[-1].register_forward_hook(lambda _, __, out: seen.append(weakref.ref(out)))
    model.norm.register_forward_hook(lambda _, __, out: seen.append(weakref.ref(out)))

    model(pictures(model)).sum().backward()
    gc.collect()

    assert [ref() for ref in seen] == [None, None]


def test_gradients_flow_through_every_parameter_that_is_used() -> None:
    model = tokensearch.apply(vit().train(), mixed(vit()))

    model(pictures(model)).sum().backward()

    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_head_that_lost_the_sizes_says_so() -> None:
    model = gap()
    features = model.forward_features(pictures(model))

    with pytest.raises(ModelError, match="the head averages tokens by size"):
        model.forward_head(features.clone())


def test_another_pooling_than_the_models_own_is_the_hosts() -> None:
    model = gap()
    features = model.forward_features(pictures(model))

    assert torch.equal(model.pool(features, pool_type="token"), features[:, 0])


def test_hooks_on_attention_are_refused_since_they_would_be_passed_over() -> None:
    model = vit()
    model.blocks[1].attn.register_forward_hook(lambda _, __, out: out * 0)

    with pytest.raises(ModelError, match="attn of block 1 has hooks"):
        tokensearch.apply(model, mixed(vit()))


def test_a_refused_policy_leaves_the_one_before_in_force() -> None:
    model = tokensearch.apply(vit(), Policy(describe(vit()), (Pool(3, 9),)))
    model.blocks[0].attn.register_forward_hook(lambda _, __, out: out)

    with pytest.raises(ModelError):
        tokensearch.apply(model, mixed(vit()))

    assert policy_of(model) == Policy(describe(model), (Pool(3, 9),))


def test_a_hook_that_cannot_be_copied_is_no_hindrance() -> None:
    model = vit()
    lock = threading.Lock()
    model.blocks[0].mlp.register_forward_hook(lambda _, __, out, held=lock: out)

    assert tokensearch.apply(model, mixed(vit())) is model


def test_a_block_with_another_setting_is_proven_again() -> None:
    model = vit()
    tokensearch.remove(tokensearch.apply(model, mixed(model)))
    model.blocks[0].attn.scale, model.blocks[0].attn.fused_attn = 1.0, False

    with pytest.raises(ModelError, match="differs by"):
        tokensearch.apply(model, mixed(model))


def test_a_projection_that_does_more_than_its_weight_says_is_called() -> None:
    class Shifted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 0.3

    model = vit()
    old = model.blocks[-1].attn.qkv
    model.blocks[-1].attn.qkv = Shifted(old.in_features, old.out_features)
    x = pictures(model)
    expected = model(x)

    with tokensearch.applied(model, "last-cls"):
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_ranges_keep_dense_features_dense() -> None:
    model = tokensearch.apply(vit(), mixed(vit()), dense=True)

    with phase_ranges(model):
        assert model.forward_features(pictures(model)).shape[1] == 17


def test_a_policy_is_applied_whatever_device_is_the_default() -> None:
    model = vit()

    with torch.device("meta"):
        assert tokensearch.apply(model, mixed(model)) is model


def test_sizes_reach_a_mean_token_without_proportional_attention() -> None:
    model = vit()
    steps = (Pool(0, 9), Prune(2, 4, rest="mean"))
    tokensearch.apply(model, Policy(describe(model), steps))
    seen: list[Tokens | None] = []
    model.blocks[2].register_forward_pre_hook(lambda _, inputs: seen.append(read_state(inputs[0])))

    model(pictures(model))

    assert seen[0] is not None
    assert seen[0].size is not None
    assert seen[0].size.sum(dim=1).flatten().tolist() == [17, 17, 17]
