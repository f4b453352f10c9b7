"""Models as people have them: wrapped, rewritten, quantised, changed after a policy was applied."""

import copy
import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils import parametrizations, prune, weight_norm
from torch.optim.swa_utils import AveragedModel

import tokensearch
from tests.runtime.test_apply import pictures, vit
from tokensearch.errors import ModelError, TokensearchWarning
from tokensearch.policy import Policy, Pool, Prune, PruneOrPool, Step
from tokensearch.runtime import describe, policy_of, weights_digest

MERGING = (Pool(0, 12), Pool(1, 9))


def average(**changes: object) -> nn.Module:
    return vit(class_token=False, global_pool="avg", **changes)


def follow(model: nn.Module, *steps: Step, **changes: str) -> nn.Module:
    policy = Policy(describe(model), steps or MERGING, **changes)  # type: ignore[arg-type]
    return tokensearch.apply(model, policy)


class Forwarding(nn.Module):
    """A wrapper of one's own, which hands on attributes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("net"), name)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.net(images)
        return out


def compiled(model: nn.Module) -> nn.Module:
    wrapped = torch.compile(model, backend="eager")
    assert isinstance(wrapped, nn.Module)
    return wrapped


@pytest.mark.parametrize(
    "wrap", [pytest.param(compiled, marks=pytest.mark.long), AveragedModel, nn.DataParallel]
)
def test_a_wrapped_model_follows_as_the_bare_one_does(wrap: Callable[..., nn.Module]) -> None:
    bare = average()
    x = pictures(bare)
    plain, wanted = bare(x), follow(copy.deepcopy(bare))(x)
    wrapped = wrap(bare)
    inner = wrapped.module if hasattr(wrapped, "module") else bare
    wrapped(x)  # what is compiled now must not be used under the policy

    follow(wrapped)

    torch.testing.assert_close(wrapped(x), wanted)
    assert policy_of(inner) == policy_of(wrapped) is not None
    assert weights_digest(inner) == weights_digest(wrapped)
    tokensearch.remove(inner)
    assert policy_of(wrapped) is None
    torch.testing.assert_close(wrapped(x), plain)


def test_a_wrapper_of_unknown_code_names_the_attribute_to_pass() -> None:
    with pytest.raises(ModelError, match=r"keeps its VisionTransformer in \.net; pass that"):
        tokensearch.apply(Forwarding(average()), "tome-r13")


def test_a_sequence_around_a_model_names_the_index_to_pass() -> None:
    with pytest.raises(ModelError, match=r"pass that: model\[1\] "):
        tokensearch.apply(nn.Sequential(nn.Identity(), average()), "tome-r13")


@pytest.mark.parametrize("thing", [None, average])
def test_what_is_no_module_is_refused(thing: object) -> None:
    with pytest.raises(ModelError, match="is no torch module"):
        tokensearch.apply(thing, "tome-r13")  # type: ignore[type-var]


def test_blocks_that_were_compiled_or_checkpointed_alone_name_the_remedy() -> None:
    model = vit()
    first = model.blocks[0]
    model.blocks[0] = compiled(first)
    with pytest.raises(ModelError, match=r"on the whole model, or block\.compile\(\)"):
        follow(model)
    model.blocks[0] = checkpoint_wrapper(first)
    with pytest.raises(ModelError, match="apply the policy before that"):
        follow(model)


def test_blocks_are_wrapped_after_a_policy_was_applied() -> None:
    model = follow(vit())
    expected = model(pictures(model))
    for index, block in enumerate(model.blocks):
        model.blocks[index] = checkpoint_wrapper(block)

    torch.testing.assert_close(model(pictures(model)), expected)


def test_a_block_that_runs_twice_is_refused() -> None:
    model = vit()
    model.blocks[2] = model.blocks[1]

    with pytest.raises(ModelError, match=r"blocks 1 and 2 .* are one module"):
        follow(model)


def test_a_traced_model_names_the_remedy() -> None:
    traced = torch.fx.symbolic_trace(vit())
    with pytest.raises(ModelError, match="apply the policy to the model before that"):
        tokensearch.apply(traced, "tome-r13")
    with pytest.raises(ModelError, match=r"take torch\.export"):
        torch.fx.symbolic_trace(follow(vit()))


def test_a_data_parallel_over_several_devices_is_refused() -> None:
    parallel = nn.DataParallel(vit())
    parallel.device_ids = [0, 1]

    with pytest.raises(ModelError, match="take DistributedDataParallel"):
        tokensearch.apply(parallel, "tome-r13")


def averaging(base: type, first: int, attribute: str = "forward_features") -> type:
    """A subclass that takes the mean of its tokens in code of its own."""

    def own(self: nn.Module, x: Tensor, attn_mask: object = None) -> Tensor:
        del attn_mask
        x = self.patch_embed(x)  # type: ignore[operator]
        x = self.blocks(self._pos_embed(x))  # type: ignore[operator]
        mean = x[:, first:].mean(dim=1)
        out: Tensor = self.fc_norm(mean)  # type: ignore[operator]
        return out if attribute == "forward_features" else self.head(out)  # type: ignore[operator]

    members = {attribute: own}
    if attribute == "forward_features":
        members["forward"] = lambda self, x: self.head(self.forward_features(x))
    return type("Averaging", (base,), members)


@pytest.mark.parametrize("attribute", ["forward_features", "forward"])
def test_an_average_in_code_of_its_own_counts_tokens_as_timm_s_does(attribute: str) -> None:
    timms = vit(global_pool="avg", fc_norm=True)
    own = copy.deepcopy(timms)
    own.__class__ = averaging(type(timms), 1, attribute)
    own.global_pool = "token"
    x = pictures(timms)
    torch.testing.assert_close(own(x), timms(x))

    follow(own)
    follow(timms)

    torch.testing.assert_close(own(x), timms(x))


def test_an_average_in_code_of_its_own_cannot_weigh_what_was_discarded() -> None:
    own = vit(global_pool="avg", fc_norm=True)
    own.__class__ = averaging(type(own), 1)

    with pytest.raises(ModelError, match=r"let it average in timm's pool\(\)"):
        follow(own, Prune(0, 12), Pool(1, 9))
    follow(own, Prune(0, 12), Prune(1, 9))


def test_a_class_token_in_code_of_its_own_needs_no_grid() -> None:
    class Own(type(vit())):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.forward_features(x)[:, 0])
            return out

    timms = vit()
    own = copy.deepcopy(timms)
    own.__class__ = Own
    counts: list[int] = []
    own.blocks[-1].register_forward_hook(lambda _, __, out: counts.append(out.shape[1]))
    x = pictures(timms)

    follow(own)
    follow(timms)

    torch.testing.assert_close(own(x), timms(x))
    assert counts[-1] == 10  # the class token and nine others: no grid was made


def test_an_average_in_code_of_its_own_needs_the_last_block_whole() -> None:
    own = vit()
    own.__class__ = averaging(type(own), 1)

    with pytest.raises(ModelError, match="reads patch tokens in code of its own"):
        follow(own, last_block="prefix_only")


def test_intermediate_features_are_no_images_without_all_patches() -> None:
    model = follow(vit())
    x = pictures(model)

    _, features = model.forward_intermediates(x, output_fmt="NLC")
    assert [part.shape[1] for part in features] == [12, 9, 9, 9]
    with pytest.raises(ModelError, match="apply the policy with dense=True"):
        model.forward_intermediates(x)
    with tokensearch.applied(model, Policy(describe(model), MERGING), dense=True):
        _, features = model.forward_intermediates(x)
    assert [part.shape for part in features] == [(3, 24, 4, 4)] * 4
    _, features = tokensearch.remove(model).forward_intermediates(x)
    assert features[0].shape == (3, 24, 4, 4)


@pytest.mark.parametrize("index", [0, 1])
def test_a_block_that_was_replaced_is_noticed(index: int) -> None:
    model = follow(vit())
    model.blocks[index] = vit().blocks[index]

    with pytest.raises(ModelError, match=r"replaced after the policy|knew of its tokens"):
        model(pictures(model))


def doubled(kind: type) -> type:
    """A subclass whose output is twice as large."""
    return type("Doubled", (kind,), {"forward": lambda self, x, **_: 2 * kind.forward(self, x)})  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["", "attn"])
def test_code_that_was_replaced_is_noticed(name: str) -> None:
    model = follow(vit())
    part = model.blocks[1].get_submodule(name)
    part.__class__ = doubled(type(part))

    with pytest.raises(ModelError, match="has other code than when the policy was applied"):
        model(pictures(model))


def test_attention_that_was_replaced_by_other_code_is_noticed() -> None:
    model = follow(vit())
    model.blocks[0].attn = nn.Identity()

    with pytest.raises(ModelError, match="attn of block 0 has other code"):
        model(pictures(model))


def test_attention_of_the_same_kind_may_be_replaced() -> None:
    model, other = follow(vit()), vit()
    other.blocks[0].attn.qkv.weight.data.mul_(1.5)
    model.blocks[0].attn = copy.deepcopy(other.blocks[0].attn)

    torch.testing.assert_close(model(pictures(model)), follow(other)(pictures(model)))


def test_parts_of_a_last_block_may_be_replaced_by_others() -> None:
    model, other = vit(), vit()
    for each in (model, other):
        each.blocks[-1].mlp.fc1 = nn.Sequential(each.blocks[-1].mlp.fc1)
    follow(model, last_block="prefix_only")
    for each in (model, other):  # as adapters that are merged into their layer
        each.blocks[-1].mlp.fc1 = each.blocks[-1].mlp.fc1[0]

    expected = follow(other, last_block="prefix_only")(pictures(other))
    torch.testing.assert_close(model(pictures(model)), expected)


def test_a_head_that_was_reset_is_noticed_at_the_next_pass() -> None:
    model = tokensearch.apply(vit(), "last-cls")
    x = pictures(model)

    model.reset_classifier(7)
    assert model(x).shape == (3, 7)  # the same pooling: fine-tuning goes on
    model.reset_classifier(7, global_pool="avg")

    with pytest.raises(ModelError, match="its global_pool is now 'avg'; apply the policy again"):
        model(x)


def test_a_merging_policy_notices_that_the_head_averages_now() -> None:
    model = follow(vit())

    model.reset_classifier(7, global_pool="avg")

    with pytest.raises(ModelError, match="apply the policy again"):
        model(pictures(model))


def test_an_input_size_that_was_set_later_is_noticed() -> None:
    model = follow(vit())
    model.set_input_size(img_size=64)

    with pytest.raises(ModelError, match="images of another size"):
        model(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_hooks_that_would_be_passed_over_are_refused(register: str, *, late: bool) -> None:
    model = vit()
    model.blocks[0].attn.fused_attn = False  # the host calls attn_drop then
    if late:
        follow(model)
    getattr(model.blocks[0].attn.attn_drop, register)(lambda *_: None)

    with pytest.raises(ModelError, match=r"attn\.attn_drop of block 0 has hooks"):
        (model if late else follow(model))(pictures(model))


def test_a_hook_on_attention_that_is_no_longer_fused_is_noticed() -> None:
    model = vit()
    attention = model.blocks[0].attn
    attention.fused_attn = True
    follow(model)
    attention.attn_drop.register_forward_hook(lambda *_: None)
    model(pictures(model))  # the host does not call it, either

    attention.fused_attn = False  # as those do who want to see attention

    with pytest.raises(ModelError, match=r"attn\.attn_drop of block 0 has hooks"):
        model(pictures(model))


def test_a_hook_on_what_the_host_never_calls_is_no_matter() -> None:
    model = vit()
    model.blocks[0].attn.fused_attn = True
    calls: list[None] = []
    model.blocks[0].attn.attn_drop.register_forward_hook(lambda *_: calls.append(None))

    assert follow(model)(pictures(model)).isfinite().all()
    assert not calls


def test_hooks_on_what_an_opened_block_calls_are_honoured() -> None:
    model = vit()
    seen: list[str] = []
    for name in ("norm1", "attn.qkv", "attn.proj", "mlp", "mlp.fc1"):
        part = model.blocks[0].get_submodule(name)
        part.register_forward_hook(lambda *_, name=name: seen.append(name))

    follow(model)(pictures(model))

    assert sorted(seen) == ["attn.proj", "attn.qkv", "mlp", "mlp.fc1", "norm1"]


@pytest.mark.parametrize("late", [False, True])
def test_a_lossless_last_block_refuses_hooks_that_would_see_prefix_tokens_alone(
    *, late: bool
) -> None:
    model = tokensearch.apply(vit(), "last-cls") if late else vit()
    model.blocks[-1].attn.qkv.register_forward_hook(lambda _, __, out: out - out.mean(1, True))

    with pytest.raises(ModelError, match=r"attn\.qkv of block 3 has hooks"):
        (model if late else tokensearch.apply(model, "last-cls"))(pictures(model))


@pytest.mark.parametrize("late", [False, True])
def test_a_forward_put_on_attention_is_refused(*, late: bool) -> None:
    model = follow(vit()) if late else vit()
    own = model.blocks[0].attn.forward
    model.blocks[0].attn.forward = lambda *args, **named: own(*args, **named)

    with pytest.raises(ModelError, match="attn of block 0 has a forward of its own"):
        (model if late else follow(model))(pictures(model))


def pruned(layer: nn.Module) -> object:
    return prune.l1_unstructured(layer, "weight", 0.5)  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("rewrite", [pruned, weight_norm, parametrizations.weight_norm])
@pytest.mark.parametrize("layer", ["attn.qkv", "mlp.fc1"])
def test_weights_that_are_computed_are_computed(
    rewrite: Callable[[nn.Module], object], layer: str
) -> None:
    model = vit()
    for block in model.blocks:
        rewrite(block.get_submodule(layer))
    x = pictures(model)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(tokensearch.apply(model, "last-cls")(x), expected)
        assert follow(model)(x).shape == expected.shape


def test_a_dynamically_quantised_model_follows_and_has_no_hash() -> None:
    policy = dataclasses.replace(
        Policy(describe(vit()), MERGING),
        model=dataclasses.replace(describe(vit()), weights="sha256:" + "0" * 64),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(vit(), {nn.Linear}, dtype=torch.qint8)

    with pytest.warns(TokensearchWarning, match="have no hash"):
        tokensearch.apply(model, policy)

    close = follow(vit())(pictures(model))
    assert (model(pictures(model)) - close).abs().max() < 0.1 * close.abs().max()


class Halved(Tensor):
    """Weights that are kept as their half: a subclass that is no piece of memory."""

    half: Tensor

    @staticmethod
    def __new__(cls, half: Tensor) -> "Halved":
        out: Halved = Tensor._make_wrapper_subclass(cls, half.shape, dtype=half.dtype)  # type: ignore[attr-defined]
        out.half = half
        return out

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["half"], None

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        aten = torch.ops.aten
        if func in {aten.detach.default, aten.clone.default, aten._to_copy.default}:
            return cls(func(args[0].half, *args[1:], **(kwargs or {})))
        plain = [2 * one.half if isinstance(one, cls) else one for one in args]
        return func(*plain, **(kwargs or {}))


def test_weights_that_are_a_subclass_of_tensor_never_reach_the_hash() -> None:
    model = vit()
    expected = follow(copy.deepcopy(model))(pictures(model))
    for block in model.blocks:
        layer = block.mlp.fc1
        layer.weight = nn.Parameter(Halved(layer.weight.detach() / 2), requires_grad=False)

    assert weights_digest(model) is None
    with torch.no_grad():
        torch.testing.assert_close(follow(model)(pictures(model)), expected)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("name", ["mlp.fc1", "attn.qkv"])
def test_sparse_weights_follow_and_have_no_hash(name: str) -> None:
    model = vit()
    for block in model.blocks:
        layer = block.get_submodule(name)
        layer.weight = nn.Parameter(layer.weight.detach().to_sparse_csr(), requires_grad=False)
    x = pictures(model)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(tokensearch.apply(model, "last-cls")(x), expected)
    assert weights_digest(model) is None


def test_a_model_on_the_meta_device_follows() -> None:
    model = follow(average().to("meta"))

    assert model(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 5)
    assert weights_digest(model) is None


def test_a_model_of_fake_tensors_follows() -> None:
    fake, real = FakeTensorMode(), average()
    with FakeCopyMode(fake):
        model = copy.deepcopy(real)
    with fake:
        assert follow(model)(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert weights_digest(model) is None


POOLS = ("bipartite", "kmeans", "kmedoids", "agglomerative")


@pytest.mark.parametrize(
    "step",
    [
        *(Pool(0, 9, match) for match in POOLS),  # type: ignore[arg-type]
        Pool(0, 9, "ranked", "class_attention"),
        Pool(0, 4, "grid"),
        Prune(0, 9),
        Prune(0, 9, rest="fuse"),
        Prune(0, 9, rest="mean"),
        PruneOrPool(0, 9, threshold=0.5),
    ],
)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.filterwarnings("ignore:var\\(\\)")  # of no images
def test_a_batch_may_be_empty(step: Step, *, dense: bool) -> None:
    model = vit()
    x = pictures(model)[:0]

    with tokensearch.applied(model, Policy(describe(model), (step,)), dense=dense):
        assert model(x).shape == (0, 5)


def test_a_policy_file_is_applied_to_weights_without_a_hash(tmp_path: Path) -> None:
    spec = dataclasses.replace(describe(vit()), weights="sha256:" + "0" * 64)
    tokensearch.save(Policy(spec, MERGING), tmp_path / "policy.json")

    with pytest.warns(TokensearchWarning, match="have no hash"):
        tokensearch.apply(vit().to("meta"), tmp_path / "policy.json")
