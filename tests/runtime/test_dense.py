"""Dense use: features for every patch, whatever became of its token."""

from collections.abc import Iterator

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import tokensearch
from tests.runtime.test_apply import mixed, pictures, vit
from tokensearch.errors import ModelError
from tokensearch.policy import Policy, Pool, Prune, Step
from tokensearch.runtime import describe


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def following(*steps: Step, dense: bool = True, **changes: object) -> VisionTransformer:
    model = vit(**changes)
    return tokensearch.apply(model, Policy(describe(model), steps), dense=dense)


def test_features_have_the_shape_that_they_have_without_a_policy() -> None:
    host = vit()
    x = pictures(host)
    expected = [grid.shape for grid in host.forward_intermediates(x, intermediates_only=True)]

    model = tokensearch.apply(vit(), mixed(host), dense=True)

    assert model.forward_features(x).shape == host.forward_features(x).shape
    found = model.forward_intermediates(x, intermediates_only=True)
    assert [grid.shape for grid in found] == expected


def test_logits_are_those_without_dense_features() -> None:
    model = vit()
    x, policy = pictures(model), mixed(model)

    with tokensearch.applied(model, policy):
        expected = model(x)
    with tokensearch.applied(model, policy, dense=True):
        assert torch.equal(model(x), expected)


def test_blocks_before_the_first_step_hand_out_their_own_features() -> None:
    model, host = following(Prune(2, 5)), vit()
    x = pictures(host)

    found = model.forward_intermediates(x, intermediates_only=True)
    expected = host.forward_intermediates(x, intermediates_only=True)

    assert all(torch.equal(found[place], expected[place]) for place in (0, 1))
    assert not torch.equal(found[2], expected[2])


def test_a_discarded_patch_keeps_the_features_of_when_it_was_discarded() -> None:
    model, host = following(Prune(1, 5)), vit()
    x = pictures(host)
    attended: list[Tensor] = []
    host.blocks[1].norm2.register_forward_pre_hook(lambda _, inputs: attended.append(inputs[0]))
    host(x)

    lost = tokensearch.trace(model, x)[1] < 0
    features = model.forward_intermediates(x, [3], output_fmt="NLC", intermediates_only=True)[0]

    assert lost.sum(dim=1).tolist() == [11, 11, 11]
    torch.testing.assert_close(features[lost], attended[0][:, 1:][lost])


def test_patches_of_one_token_share_its_features() -> None:
    model = following(Pool(1, 9))
    x = pictures(model)

    source = tokensearch.trace(model, x)[-1]
    features = model.forward_features(x)[:, 1:]

    for image in range(3):
        for token in range(9):
            held = features[image, source[image] == token]
            assert torch.equal(held, held[:1].expand_as(held))


def test_every_block_says_which_token_holds_each_patch() -> None:
    model = following(Prune(1, 10), Pool(3, 6), dense=False)

    sources = tokensearch.trace(model, pictures(model))

    assert [source.shape for source in sources] == [(3, 16)] * 4
    assert sources[0].tolist() == [list(range(16))] * 3
    assert [(source >= 0).sum(dim=1).tolist() for source in sources[1:]] == [[10] * 3] * 3
    assert [int(source.max()) for source in sources] == [15, 9, 9, 5]


def test_tracing_changes_nothing() -> None:
    model = following(Prune(1, 10), Pool(3, 6))
    x = pictures(model)
    before = model.forward_features(x)

    tokensearch.trace(model, x)

    assert torch.equal(model.forward_features(x), before)


def test_applied_gives_back_dense_features() -> None:
    model = following(Prune(1, 10))
    x = pictures(model)

    with tokensearch.applied(model, "none"):
        pass

    assert model.forward_features(x).shape[1] == 17


def test_a_last_block_without_patches_cannot_be_dense() -> None:
    with pytest.raises(ModelError, match="leaves no patches for dense features"):
        tokensearch.apply(vit(), "last-cls", dense=True)


def test_a_model_without_a_policy_cannot_be_traced() -> None:
    model: nn.Module = vit()

    with pytest.raises(ModelError, match="a VisionTransformer follows no policy"):
        tokensearch.trace(model, torch.zeros(1, 3, 32, 32))
