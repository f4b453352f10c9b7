"""The bundled model: its geometry, its weights, and that it can do its job."""

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import Attention, Block, VisionTransformer

from tokensearch.data.scenes import split_scenes
from tokensearch.demo import demo_model
from tokensearch.demo.model import WEIGHTS, ConvStem, bare_model
from tokensearch.models import input_pixels
from tokensearch.runtime import describe


@pytest.fixture(scope="module")
def model():
    return demo_model()


def test_the_model_has_the_geometry_of_deit(model):
    assert model.patch_embed.num_patches == 196
    assert model.num_prefix_tokens == 1
    assert len(model.blocks) == 12
    assert model.global_pool == "token"
    assert model.num_classes == 10


def test_the_blocks_are_plain_timm_blocks(model):
    assert all(type(block) is Block and type(block.attn) is Attention for block in model.blocks)


def test_the_stem_makes_as_many_tokens_as_it_says(model):
    with torch.inference_mode():
        assert model.patch_embed(torch.zeros(2, 3, 224, 224)).shape == (2, 196, model.embed_dim)


def test_timm_reads_the_preprocessing_off_the_model(model):
    config = timm.data.resolve_data_config({}, model=model)
    assert config["input_size"] == (3, 224, 224)
    assert config["mean"] == config["std"] == (0.5, 0.5, 0.5)
    assert config["crop_pct"] == 1.0
    assert config["interpolation"] == "bicubic"


def test_the_weights_are_at_most_8_mb():
    assert WEIGHTS.stat().st_size <= 8_000_000


def test_the_model_comes_in_eval_mode_and_single_precision(model):
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_folding_the_norms_of_the_stem_changes_nothing_it_computes():
    torch.manual_seed(0)
    stem = bare_model(norm=True).patch_embed
    images = torch.randn(4, 3, 224, 224)
    stem.train()(images)  # give the norms statistics that matter
    before = stem.eval()(images)
    stem.fold()
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in stem.modules())
    torch.testing.assert_close(stem(images), before, rtol=1e-4, atol=1e-4)


def test_a_stem_for_other_patches_is_refused():
    with pytest.raises(ValueError, match="patches of 16 px"):
        ConvStem(patch_size=32)
    with pytest.raises(ValueError, match="patches of 16 px, not of 8 px"):
        ConvStem().set_input_size(160, patch_size=8)


def test_a_resized_model_is_one_built_at_that_size_with_resampled_positions():
    resized = demo_model()
    positions = resample_abs_pos_embed(resized.pos_embed, new_size=[10, 10])
    built = VisionTransformer(
        img_size=160, embed_dim=128, depth=12, num_heads=4, num_classes=10, embed_layer=ConvStem
    ).eval()
    built.load_state_dict({**resized.state_dict(), "pos_embed": positions})

    resized.set_input_size(img_size=160)

    images = torch.randn(2, 3, 160, 160)
    with torch.inference_mode():
        found = resized(images)
        assert found.isfinite().all()
        torch.testing.assert_close(found, built(images), rtol=0, atol=0)
    assert input_pixels(resized) == (160, 160)
    assert describe(resized).patch_tokens == describe(built).patch_tokens == 100


@pytest.mark.long
def test_the_model_names_eight_in_ten_scenes(model):
    images, labels = split_scenes("select", 200)
    with torch.inference_mode():
        named = [model(batch / 127.5 - 1).argmax(1) for batch in images.split(50)]
    assert (torch.cat(named) == labels).float().mean() >= 0.8
