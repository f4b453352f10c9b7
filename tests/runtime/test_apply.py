import copy
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

import tokensearch
from tokensearch.errors import ModelError, PolicyError
from tokensearch.policy import PRESETS, ModelSpec, Policy, Pool, Prune, preset, save
from tokensearch.runtime import describe, policy_of, weights_digest


def vit(**changes: object) -> VisionTransformer:
    """A small ViT with 16 patch tokens and 4 blocks, with every parameter drawn at random."""
    shape = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "num_heads": 3,
        "depth": 4,
        "num_classes": 5,
    }
    torch.manual_seed(0)
    model = VisionTransformer(**{**shape, **changes}).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def distilled() -> nn.Module:
    return timm.create_model("deit_tiny_distilled_patch16_224", img_size=64, depth=4).eval()


HOSTS = {
    "vit": vit,
    "registers": lambda: vit(reg_tokens=4, no_embed_class=True),
    "LayerScale and q/k-norm": lambda: vit(init_values=0.5, qk_norm=True, norm_layer=nn.LayerNorm),
    "distilled": distilled,
    "without qkv bias": lambda: vit(qkv_bias=False),
    "norms before the blocks and after attention": lambda: vit(pre_norm=True, scale_attn_norm=True),
}


@pytest.fixture(params=HOSTS, scope="module")
def host(request: pytest.FixtureRequest) -> nn.Module:
    return HOSTS[request.param]()


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def pictures(model: nn.Module, count: int = 3) -> Tensor:
    size = model.patch_embed.img_size
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


def mlp_tokens(model: nn.Module) -> list[int]:
    """A list that each block's MLP adds its number of tokens to, from now on."""
    seen: list[int] = []
    for block in model.blocks:
        block.mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    return seen


def mixed(model: nn.Module) -> Policy:
    spec = describe(model)
    steps = (Prune(0, 14), Pool(0, 12), Pool(1, 8), Prune(2, 6))
    return Policy(spec, steps, proportional_attention=True)


def test_keeping_everything_changes_no_bit(host: nn.Module) -> None:
    x = pictures(host)
    before = host(x)

    with tokensearch.applied(host, "none"):
        assert torch.equal(host(x), before)


def test_opening_every_block_changes_no_bit(host: nn.Module) -> None:
    x = pictures(host)
    before = host(x)

    with tokensearch.runtime.phase_ranges(host):
        assert torch.equal(host(x), before)


def test_blocks_see_the_promised_tokens(host: nn.Module) -> None:
    policy = mixed(host)
    model = tokensearch.apply(copy.deepcopy(host), policy)
    seen = mlp_tokens(model)

    model(pictures(model))

    assert seen == [policy.model.prefix_tokens + count for count in policy.patch_tokens_per_block]


def test_an_image_does_not_depend_on_its_batch_mates(host: nn.Module) -> None:
    x = pictures(host)

    with tokensearch.applied(host, mixed(host)):
        torch.testing.assert_close(host(x)[1:2], host(x[1:2]), rtol=1e-4, atol=1e-5)


def test_the_last_block_may_skip_patch_tokens_without_loss(host: nn.Module) -> None:
    x = pictures(host)
    before = host(x)

    with tokensearch.applied(host, "last-cls"):
        torch.testing.assert_close(host(x), before, rtol=1e-4, atol=1e-5)


def test_the_last_block_may_skip_patch_tokens_after_pools_too(host: nn.Module) -> None:
    x, policy = pictures(host), mixed(host)
    with tokensearch.applied(host, policy):
        before = host(x)

    short = Policy(
        policy.model, policy.steps, proportional_attention=True, last_block="prefix_only"
    )
    with tokensearch.applied(host, short):
        torch.testing.assert_close(host(x), before, rtol=1e-4, atol=1e-5)


def test_remove_restores_the_model_exactly(host: nn.Module) -> None:
    x, before, state = pictures(host), dict(host.__dict__), weights_digest(host)
    inside = [dict(module.__dict__) for module in host.modules()]
    logits = host(x)

    tokensearch.remove(tokensearch.apply(host, mixed(host)))

    assert torch.equal(host(x), logits)
    assert weights_digest(host) == state
    assert host.__dict__ == before
    assert [dict(module.__dict__) for module in host.modules()] == inside


def test_applied_gives_back_the_policy_of_before() -> None:
    model = tokensearch.apply(vit(), mixed(vit()))

    with tokensearch.applied(model, "none"):
        assert policy_of(model) == preset("none", describe(model))

    assert policy_of(model) == mixed(model)


def test_a_copy_follows_the_policy_without_the_original() -> None:
    model = tokensearch.apply(vit(), mixed(vit()))
    x = pictures(model)
    expected = model(x)

    twin = copy.deepcopy(model)
    tokensearch.remove(model)

    assert torch.equal(twin(x), expected)
    assert not torch.equal(model(x), expected)


def test_threads_may_share_a_model() -> None:
    model = tokensearch.apply(vit(), mixed(vit()))
    batches = [
        torch.randn(2 + n % 3, 3, 32, 32, generator=torch.Generator().manual_seed(n))
        for n in range(8)
    ]
    expected = [model(x) for x in batches]
    found: dict[int, Tensor] = {}

    def work(n: int) -> None:
        with torch.inference_mode():
            for _ in range(5):
                found[n] = model(batches[n])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for n, logits in enumerate(expected):
        torch.testing.assert_close(found[n], logits)


def test_a_policy_file_is_applied_by_path(tmp_path: Path) -> None:
    model = vit()
    save(mixed(model), tmp_path / "policy.json")

    assert policy_of(tokensearch.apply(model, tmp_path / "policy.json")) == mixed(model)


def test_a_policy_survives_export() -> None:
    with torch.no_grad():  # export refuses inference tensors
        model = tokensearch.apply(vit(), mixed(vit()))
        x = torch.randn(2, 3, 32, 32)

        program = torch.export.export(model, (x,))

        torch.testing.assert_close(program.module()(x), model(x))


def test_autocast_gives_finite_logits() -> None:
    model = tokensearch.apply(vit(), mixed(vit()))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(pictures(model)).isfinite().all()


@pytest.fixture(scope="module")
def deits() -> dict[int, nn.Module]:
    """Models of DeiT's geometry by depth, with few features."""
    shape = {"embed_dim": 24, "num_heads": 3, "num_classes": 5}
    return {
        depth: timm.create_model("deit_tiny_patch16_224", depth=depth, **shape).eval()
        for depth in (12, 24)
    }


@pytest.mark.parametrize("preset_name", PRESETS)
def test_every_preset_runs_on_a_deit(preset_name: str, deits: dict[int, nn.Module]) -> None:
    model = deits[PRESETS[preset_name].blocks or 12]

    logits = tokensearch.apply(model, preset_name)(pictures(model, count=1))

    assert logits.shape == (1, 5)
    assert logits.isfinite().all()
    assert policy_of(model) == preset(preset_name, describe(model))


def spec(**changes: object) -> ModelSpec:
    fields = {"name": "toy", "blocks": 4, "patch_tokens": 16, "prefix_tokens": 1, "width": 24}
    return ModelSpec(**{**fields, **changes})


@pytest.mark.parametrize(
    ("field", "value"), [("blocks", 6), ("patch_tokens", 196), ("prefix_tokens", 2), ("width", 192)]
)
def test_a_policy_of_another_geometry_is_refused_naming_both_sides(field: str, value: int) -> None:
    model = vit()

    with pytest.raises(PolicyError) as raised:
        tokensearch.apply(model, Policy(spec(**{field: value})))

    has = getattr(describe(model), field)
    assert str(raised.value) == (
        f"the policy was made for toy with {field} {value}; VisionTransformer has {field} {has}"
    )
    assert policy_of(model) is None


def test_other_weights_are_a_warning() -> None:
    model = vit()

    with pytest.warns(UserWarning, match="found on other weights of toy"):
        tokensearch.apply(model, Policy(spec(weights="sha256:" + "0" * 64)))


def test_the_same_weights_are_no_warning() -> None:
    model = vit()

    assert tokensearch.apply(model, Policy(spec(weights=weights_digest(model)))) is model


def test_a_swin_is_refused_in_one_sentence() -> None:
    with torch.device("meta"):
        model = timm.create_model("swin_tiny_patch4_window7_224")

    with pytest.raises(ModelError) as raised:
        tokensearch.apply(model, "none")

    assert str(raised.value) == (
        "a SwinTransformer has stages, whose windows and downsampling need the whole grid, instead "
        "of blocks; supported are timm's VisionTransformer, Eva and NaFlexVit, and transformers' "
        "ViT, DeiT, Dinov2, DINOv3ViT, CLIP and SigLIP vision models (since its 5.18)"
    )


def test_a_block_with_a_bias_for_pairs_of_positions_is_refused_with_the_reason() -> None:
    with torch.device("meta"):
        model = timm.create_model("beit_base_patch16_224")

    with pytest.raises(ModelError) as raised:
        describe(model)

    assert str(raised.value) == (
        "block 0 of the Beit cannot be opened: its attention adds a bias for each pair of "
        "positions, which merged tokens do not have"
    )


def test_a_block_that_computes_something_else_is_refused_before_use() -> None:
    class Doubling(Block):
        def forward(self, x: Tensor, **rest: object) -> Tensor:
            return super().forward(x) * 2

    Doubling.__name__ = "Block"
    model = vit(block_fn=Doubling)

    with pytest.raises(
        ModelError, match=r"block 0, a .*Block, differs by .* from its own forward when opened"
    ):
        tokensearch.apply(model, mixed(vit()))

    assert policy_of(model) is None


@pytest.mark.parametrize(
    ("changes", "policy", "message"),
    [
        (
            {"global_pool": "avg"},
            Policy(spec(), last_block="prefix_only"),
            "last_block is prefix_only, but the head of VisionTransformer reads patch tokens",
        ),
        (
            {"class_token": False, "global_pool": "avg"},
            Policy(spec(prefix_tokens=0), (Prune(1, 8),)),
            "the policy scores by class attention, but VisionTransformer has no class token; "
            "PPT's rule needs one, others take preset(name, model, score='mean_attention')",
        ),
    ],
)
def test_a_policy_that_the_head_cannot_bear_is_refused(
    changes: dict[str, object], policy: Policy, message: str
) -> None:
    with pytest.raises(ModelError) as raised:
        tokensearch.apply(vit(**changes), policy)

    assert str(raised.value) == message


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_large_weights_are_no_reason_to_refuse_a_block(dtype: torch.dtype) -> None:
    model = vit()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=3.0)

    assert tokensearch.apply(model.to(dtype), "last-cls") is model


def test_a_forward_of_the_users_own_is_given_back() -> None:
    model = vit()
    own = model.blocks[0].forward
    model.blocks[0].forward = own

    tokensearch.remove(tokensearch.apply(model, mixed(model)))

    assert model.blocks[0].__dict__["forward"] == own


def test_blocks_after_the_last_pool_run_their_own_code() -> None:
    model = tokensearch.apply(vit(), Policy(spec(), (Pool(0, 12), Prune(3, 6))))

    assert ["forward" in block.__dict__ for block in model.blocks] == [True, False, False, True]


def test_images_of_another_size_are_refused() -> None:
    model = tokensearch.apply(vit(dynamic_img_size=True), mixed(vit()))

    with pytest.raises(
        ModelError, match="block 0 was given 36 patch tokens; the policy in use promises it 16"
    ):
        model(torch.randn(1, 3, 48, 48))


def test_an_attention_mask_is_refused() -> None:
    model = tokensearch.apply(vit(), mixed(vit()))

    with pytest.raises(ModelError, match="takes no attention mask"):
        model(pictures(model), attn_mask=torch.zeros(1, 1, 17, 17))


def test_a_name_that_is_neither_file_nor_preset_is_refused() -> None:
    with pytest.raises(PolicyError, match="preset 'fast' is unknown; the nearest are last-cls"):
        tokensearch.apply(vit(), "fast")


def fresh(code: str) -> str:
    """What `code` prints in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.long  # import-linter says it of every line; torch without NumPy takes seconds
def test_the_runtime_needs_torch_alone() -> None:
    blocked = [
        "timm",
        "optuna",
        "numpy",
        "rich",
        "typer",
        "sklearn",
        "matplotlib",
        "torchvision",
        "safetensors",
    ]
    code = f"""
import sys
sys.modules.update({{name: None for name in {blocked}}})
import tokensearch, tokensearch.runtime
print(tokensearch.apply.__name__, tokensearch.preset.__name__)
"""
    assert fresh(code) == "apply preset"


def test_importing_the_package_loads_no_torch() -> None:
    assert fresh("import tokensearch, sys; print('torch' in sys.modules)") == "False"


def test_a_square_grid_is_not_pooled_where_patches_lie_in_another_shape() -> None:
    wide = vit(img_size=(16, 64))  # 16 patches in two rows

    with pytest.raises(ModelError, match="pools a square grid, which the patches of"):
        tokensearch.apply(wide, Policy(describe(wide), (Pool(1, 4, "grid"),)))

    assert policy_of(wide) is None
    assert policy_of(tokensearch.apply(wide, Policy(describe(wide), (Pool(1, 8),)))) is not None
