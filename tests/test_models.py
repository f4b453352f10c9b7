import argparse
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations, prune

from tokensearch import hugging_face, models
from tokensearch.demo.model import demo_model
from tokensearch.errors import ModelError, TokensearchWarning
from tokensearch.models import (
    ALIASES,
    HOSTS,
    load_model,
    resolve_model,
    resolve_stored,
    skeleton,
)
from tokensearch.runtime import describe

NAME = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test that would go to the network."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a test asked the hub")

    monkeypatch.setattr(hugging_face, "get_hf_file_metadata", refuse)


def refusal(name: str, **more: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(resolve_model(name), **more)
    return str(caught.value)


def tiny(classes: int = 1000) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(NAME, num_classes=classes)
    return model.eval()


@pytest.mark.parametrize("full", ALIASES.values(), ids=ALIASES)
def test_every_alias_has_weights_in_timm(full: str) -> None:
    assert full in timm.list_pretrained()


def test_aliases_are_spelt_out() -> None:
    assert {alias: resolve_model(alias) for alias in ALIASES} == ALIASES
    assert resolve_model("vit_l") == "vit_large_patch16_224.augreg_in21k_ft_in1k"


def test_an_untagged_name_gets_timm_s_default_weights() -> None:
    assert resolve_model("deit_tiny_patch16_224") == "deit_tiny_patch16_224.fb_in1k"


@pytest.mark.parametrize("name", ["demo", NAME, "hf-hub:someone/model", "package.module:function"])
def test_full_names_stay_as_they_are(name: str) -> None:
    assert resolve_model(name) == name


def test_an_unknown_name_gets_the_nearest() -> None:
    assert refusal("deti_s") == "model 'deti_s' is unknown; the nearest are deit_s, deit_t, deit_b"


@pytest.mark.parametrize("name", ["resnet50x", "convnext_tinny", "vit_smal", "efficientvit"])
def test_names_that_are_suggested_are_of_models_that_can_follow_policies(name: str) -> None:
    suggested = refusal(name).partition("nearest are ")[2].split(", ")

    hosts = {*timm.list_models(module=HOSTS), *timm.list_models(module=HOSTS, pretrained=True)}
    assert len(suggested) == 3
    assert set(suggested) <= {"demo", *ALIASES} | hosts


def test_the_beginning_of_a_name_gets_the_shortest_that_go_on() -> None:
    assert refusal("deit_small_patch16_224.f") == (
        "model 'deit_small_patch16_224.f' is unknown; "
        "the nearest are deit_small_patch16_224.fb_in1k"
    )


def test_a_skeleton_has_shapes_and_no_values() -> None:
    module = skeleton(resolve_model("vit_t"))

    assert {p.device.type for p in module.parameters()} == {"meta"}
    assert dict(module.named_parameters())["blocks.11.attn.qkv.weight"].shape == (576, 192)


def test_a_skeleton_shows_the_architecture_before_any_download() -> None:
    assert (
        type(skeleton(resolve_model("swin_tiny_patch4_window7_224"))).__name__ == "SwinTransformer"
    )


def test_the_demo_has_a_skeleton_too() -> None:
    assert next(skeleton(resolve_model("demo")).parameters()).is_meta


def test_the_demo_takes_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    model, file = demo_model(pretrained=False), tmp_path / "weights.safetensors"
    save_file(model.state_dict(), file)

    loaded = load_model(resolve_model("demo"), checkpoint=file)

    assert torch.equal(loaded.module.get_parameter("head.weight"), model.head.weight)
    assert loaded.data_config["mean"] == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path, suffix: str) -> None:
    model, file = tiny(), tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"model": model.state_dict(), "epoch": 3}, file)
    else:
        save_file(model.state_dict(), file)

    loaded = load_model(resolve_model("vit_t"), checkpoint=file)

    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(loaded.module(images), model(images))
    assert (loaded.name, loaded.pretrained, loaded.module.training) == (NAME, False, False)


def test_the_data_config_is_timm_s(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(tiny().state_dict(), file)

    assert load_model(resolve_model("vit_t"), checkpoint=file).data_config == {
        "input_size": (3, 224, 224),
        "interpolation": "bicubic",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "crop_pct": 0.9,
        "crop_mode": "center",
    }


def test_a_checkpoint_with_another_head_gets_as_many_classes(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(tiny(classes=7).state_dict(), file)

    module: Any = load_model(resolve_model("vit_t"), checkpoint=file).module

    assert module.head.out_features == 7
    assert module.num_classes == 7


def test_a_checkpoint_that_does_not_fit_names_a_few_tensors(tmp_path: Path) -> None:
    state, file = tiny().state_dict(), tmp_path / "weights.safetensors"
    del state["cls_token"]
    state["norm.bias"] = torch.zeros(3)
    state["extra.weight"] = torch.zeros(1)
    state["extra.bias"] = torch.zeros(1)
    save_file(state, file)

    assert refusal("vit_t", checkpoint=file) == (
        f"checkpoint {file} does not fit {NAME} in 4 tensors: cls_token is missing; "
        "norm.bias is (3,), not (192,); extra.bias is unknown"
    )


def pruned(model: nn.Module) -> None:
    prune.l1_unstructured(model.get_submodule("blocks.0.attn.qkv"), "weight", 0.5)


def normed(model: nn.Module) -> None:
    parametrizations.weight_norm(model.get_submodule("blocks.0.attn.qkv"))


def adapted(model: nn.Module) -> None:  # as PEFT does, by hand: names are what matters
    block: Any = model.get_submodule("blocks.0.attn")
    block.qkv = nn.ModuleDict({"base_layer": block.qkv})
    block.qkv["lora_A"] = nn.ModuleDict({"default": nn.Linear(192, 4, bias=False)})


@pytest.mark.parametrize(
    ("store", "remedy"),
    [
        (pruned, "torch.nn.utils.prune.remove"),
        (normed, "torch.nn.utils.parametrize.remove_parametrizations"),
        (adapted, "PEFT's merge_and_unload()"),
    ],
)
def test_weights_that_were_stored_in_parts_name_the_remedy(
    store: Callable[[nn.Module], None], remedy: str, tmp_path: Path
) -> None:
    model, file = tiny(), tmp_path / "weights.pth"
    store(model)
    torch.save({"state_dict": under("model.", model.state_dict())}, file)

    assert f"its weights are stored in parts: save them after {remedy}" in refusal(
        "vit_t", checkpoint=file
    )


State = dict[str, torch.Tensor]


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


LAYOUTS: dict[str, tuple[Callable[[State], object], str]] = {
    "Lightning": (lambda state: {"state_dict": under("model.", state)}, "without 'model.'"),
    "mmpretrain": (lambda state: {"state_dict": under("backbone.", state)}, "without 'backbone.'"),
    "compiled": (lambda state: under("module._orig_mod.", state), "without 'module._orig_mod.'"),
    "DINO": (
        lambda state: {
            "student": under("module.", {name: 0 * value for name, value in state.items()}),
            "teacher": under("backbone.", state) | {"head.last": torch.zeros(1)},
        },
        "of 2 tables of weights, 'teacher' is taken; names are taken without 'backbone.'; 1 tensor",
    ),
    "one table of student and teacher": (
        lambda state: (
            under("student.", {n: 0 * v for n, v in state.items()}) | under("teacher.", state)
        ),
        "without 'teacher.'",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_checkpoint_is_found_where_training_code_puts_it(layout: str, tmp_path: Path) -> None:
    wrapped, said = LAYOUTS[layout]
    model, file = tiny(), tmp_path / "weights.pth"
    torch.save(wrapped(model.state_dict()), file)

    with pytest.warns(TokensearchWarning, match=said):
        loaded = load_model(resolve_model("vit_t"), checkpoint=file)

    assert_equal_states(loaded.module, model)


def assert_equal_states(one: nn.Module, other: nn.Module) -> None:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_settings_beside_the_weights_are_no_code(tmp_path: Path) -> None:
    model, file = tiny(), tmp_path / "weights.pth"
    beside = {"best": np.float64(71.2), "args": argparse.Namespace(lr=0.1), "file": tmp_path}
    torch.save({"net": model.state_dict(), **beside}, file)

    assert_equal_states(load_model(resolve_model("vit_t"), checkpoint=file).module, model)


def test_positions_of_another_size_are_resampled_as_timm_does_it(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    model: Any = timm.create_model(NAME, img_size=96)
    torch.save(model.state_dict(), file)

    with pytest.warns(TokensearchWarning, match=r"pos_embed is resampled from \(1, 37, 192\)"):
        loaded = load_model(resolve_model("vit_t"), checkpoint=file)

    model.set_input_size(img_size=224)
    assert_equal_states(loaded.module, model)


def test_a_checkpoint_without_a_head_makes_a_model_that_returns_embeddings(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({k: v for k, v in tiny().state_dict().items() if not k.startswith("head.")}, file)

    with pytest.warns(TokensearchWarning, match="no head, so that the model returns embeddings"):
        module: Any = load_model(resolve_model("vit_t"), checkpoint=file).module

    assert module.num_classes == 0


def test_a_head_that_nobody_asked_for_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(tiny().state_dict(), file)

    with pytest.warns(TokensearchWarning, match="its head is left out"):
        loaded = load_model(resolve_model("vit_t"), checkpoint=file, options={"num_classes": 0})

    assert loaded.module(torch.zeros(1, 3, 224, 224)).shape == (1, 192)


def test_a_head_that_averages_is_built(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    model = timm.create_model(NAME, global_pool="avg")
    save_file(model.state_dict(), file)

    with pytest.warns(TokensearchWarning, match="built with global_pool='avg'"):
        loaded = load_model(resolve_model("vit_t"), checkpoint=file)

    assert_equal_states(loaded.module, model)


@pytest.mark.parametrize("name", ["demo", "vit_t"])
def test_a_size_builds_the_model_and_prepares_its_images(name: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file((demo_model() if name == "demo" else tiny()).state_dict(), file)
    options = {"img_size": 96}

    with pytest.warns(TokensearchWarning, match="pos_embed is resampled"):
        loaded = load_model(resolve_model(name), checkpoint=file, options=options)

    assert loaded.data_config["input_size"] == (3, 96, 96)
    assert models.input_pixels(models.untrained(resolve_model(name), options)) == (96, 96)
    assert describe(skeleton(resolve_model(name), options)).patch_tokens == 36
    assert loaded.module(torch.zeros(1, 3, 96, 96)).shape == (1, loaded.module.num_classes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"img_size": 200},
            "img_size 200 is no multiple of the model's patches of 16 pixels up to",
        ),
        ({"wings": 2}, f"model {NAME} cannot be built with wings=2: "),
    ],
)
def test_options_that_a_model_cannot_have_are_refused_before_a_download(
    options: dict[str, object], said: str
) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(resolve_model("vit_t"), options=options)

    assert str(caught.value).startswith(said)


def test_a_size_that_only_the_data_config_has_names_the_option(tmp_path: Path) -> None:
    weights, config = tmp_path / "weights.safetensors", tmp_path / "config.json"
    save_file(tiny().state_dict(), weights)
    config.write_text('{"input_size": [3, 448, 448]}')

    said = refusal("vit_t", checkpoint=weights, data_config=config)

    assert said.endswith("build it for that size with --img-size 448")


def test_a_missing_checkpoint_is_refused() -> None:
    assert refusal("vit_t", checkpoint=Path("gone.pth")) == "checkpoint gone.pth does not exist"
    assert "tests is a folder; give the file" in refusal("vit_t", checkpoint=Path(__file__).parent)


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    torch.save(Path, file)  # any class is code to the unpickler

    assert refusal("vit_t", checkpoint=file) == (
        f"checkpoint {file} cannot be read; it must be safetensors, "
        "or a torch file that holds tensors and no code (it holds pathlib.Path; save "
        "model.state_dict() alone)"
    )


def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "numbers.pth"
    torch.save({"epoch": 3}, file)

    assert refusal("vit_t", checkpoint=file) == f"checkpoint {file} holds no table of named tensors"


@pytest.mark.parametrize("kind", [OSError, ConnectionError, TimeoutError, RuntimeError])
def test_weights_that_cannot_be_downloaded_name_the_way_out(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def away(*_: object, **__: object) -> None:
        raise kind("the hub is away.\nsecond line")

    monkeypatch.setattr(models, "_ask_hub", lambda name: None)
    monkeypatch.setattr(timm, "create_model", away)

    assert refusal("deit_s") == (
        "the weights of deit_small_patch16_224.fb_in1k cannot be downloaded "
        "(the hub is away); give a local file with --checkpoint FILE"
    )


def test_a_hub_out_of_reach_fails_before_timm_starts_to_retry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(*_: object, **__: object) -> None:
        raise ConnectionError("name or service not known")

    def retries(*_: object, **__: object) -> None:
        raise AssertionError("timm was asked")

    monkeypatch.setattr(models, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(hugging_face, "get_hf_file_metadata", away)
    monkeypatch.setattr(timm, "create_model", retries)

    assert refusal("deit_s") == (
        "the weights of deit_small_patch16_224.fb_in1k cannot be downloaded "
        "(name or service not known); give a local file with --checkpoint FILE"
    )


def test_cached_weights_need_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "try_to_load_from_cache", lambda *_: "/cache/model.safetensors")
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: nn.Identity())

    assert load_model(resolve_model("deit_s")).pretrained


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's, beside where the command is started."""
    (tmp_path / "my_factories.py").write_text(
        "from torch import nn\n"
        "def model(): return nn.Linear(2, 3)\n"
        "def number(): return 3\n"
        "def broken(): raise RuntimeError('no such file.\\nsecond line')\n"
        "def ending(): raise SystemExit(0)\n"
        "def leaving(): raise GeneratorExit\n"
        "def nothing(): pass\n"
        "def silencing(): import warnings; warnings.simplefilter('ignore'); return model()\n"
        "def stopped(): raise KeyboardInterrupt\n"
        "constant = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # which also undoes what the loader adds
    return "my_factories"


def test_a_factory_gives_its_module_with_timm_s_default_preparation(factory: str) -> None:
    loaded = load_model(resolve_model(f"{factory}:model"))

    assert isinstance(loaded.module, nn.Linear)
    assert not loaded.pretrained
    assert not loaded.module.training
    assert loaded.data_config["input_size"] == (3, 224, 224)
    assert loaded.data_config["mean"] == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("number", "model factory my_factories:number returned a int, not a torch module"),
        ("broken", "model factory my_factories:broken failed: no such file"),
        ("ending", "model factory my_factories:ending failed: SystemExit(0)"),
        ("leaving", "model factory my_factories:leaving failed: GeneratorExit()"),
        ("nothing", "model factory my_factories:nothing returned a NoneType, not a torch module"),
        ("constant", "module my_factories has no function constant"),
        ("absent", "module my_factories has no function absent"),
    ],
)
def test_a_factory_that_gives_no_module_is_refused(
    factory: str, function: str, sentence: str
) -> None:
    assert refusal(f"{factory}:{function}") == sentence


def test_a_factory_that_silences_warnings_does_not_silence_cautions(factory: str) -> None:
    load_model(resolve_model(f"{factory}:silencing"))

    with pytest.raises(TokensearchWarning):  # as pytest is set to, and nobody has changed
        warnings.warn("a caution", TokensearchWarning, stacklevel=1)


def test_a_factory_nowhere_to_be_found_is_refused() -> None:
    assert refusal("no_such_package:model") == (
        "model factory no_such_package:model cannot be imported: No module named 'no_such_package'"
    )


def test_a_factory_that_ends_the_program_when_imported_is_refused(
    factory: str, tmp_path: Path
) -> None:
    (tmp_path / "my_script.py").write_text("import sys; sys.exit('usage: my_script')")

    assert refusal("my_script:model") == (
        "model factory my_script:model cannot be imported: SystemExit('usage: my_script')"
    )


def test_a_user_who_stops_a_factory_has_stopped_it(factory: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        load_model(resolve_model(f"{factory}:stopped"))


@pytest.mark.parametrize("name", ["os:abort", "hf-hub:a/b", "hf_hub:a/b", "local-dir:/tmp"])
def test_a_name_from_a_file_runs_no_code_and_reads_nothing(name: str) -> None:
    with pytest.raises(ModelError, match=r"^the policy was made for the model ") as caught:
        resolve_stored(name, what="the policy")

    assert str(caught.value).endswith(f"; give --model '{name}'")


@pytest.mark.parametrize("name", ["demo", NAME, "swin_tiny_patch4_window7_224.ms_in1k"])
def test_a_name_from_a_file_may_be_one_of_timm_s(name: str) -> None:
    assert resolve_stored(name, what="the policy") == name


def test_a_name_from_a_file_that_is_endless_is_shown_cut(factory: str) -> None:
    with pytest.raises(ModelError) as caught:
        resolve_stored("no_such_model " * 10**5, what="the policy")

    assert len(str(caught.value)) < 500


def test_a_checkpoint_fills_a_factory_s_module(factory: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"weight": torch.full((3, 2), 5.0), "bias": torch.zeros(3)}, file)

    loaded = load_model(resolve_model(f"{factory}:model"), checkpoint=file)

    assert loaded.module.get_parameter("weight").tolist() == [[5.0, 5.0]] * 3


def test_a_data_config_file_overrides_what_it_names(factory: str, tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text(json.dumps({"input_size": [3, 96, 96], "mean": [0, 0, 0], "crop_pct": 1.0}))

    config = load_model(resolve_model(f"{factory}:model"), data_config=file).data_config

    assert (config["input_size"], config["mean"], config["crop_pct"]) == ((3, 96, 96), (0, 0, 0), 1)
    assert config["std"] == (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1]", "data config {}: the file holds a list, not an object"),
        ("[" * 100_000, "data config {}: the file is not JSON: maximum recursion depth exceeded"),
        ('{"mean": [NaN, 0, 0]}', "data config {}: the file is not JSON: NaN is no number there"),
        (
            '{"size": 3}',
            "data config {} has 'size'; it may have input_size, mean, std, interpolation, "
            "crop_pct, crop_mode",
        ),
        (
            '{"std": [0, 1, 1]}',
            "std in data config {} is [0, 1, 1]; it must be three numbers above 0",
        ),
        (
            '{"input_size": [3, 2049, 224]}',
            "input_size in data config {} is [3, 2049, 224]; it must be [channels, rows, columns], "
            "of at most 2048 each",
        ),
        ('{"crop_pct": 0.4}', "crop_pct in data config {} is 0.4; it must be a number from 0.5 to"),
    ],
)
def test_a_data_config_that_says_something_else_is_refused(
    tmp_path: Path, text: str, sentence: str
) -> None:
    file = tmp_path / "data.json"
    file.write_text(text)

    assert refusal("vit_t", data_config=file).startswith(sentence.format(file))


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save({"weight": torch.zeros(1000, 1000)}, plain)
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))

    assert refusal(NAME, checkpoint=packed) == (
        f"checkpoint {packed} is compressed, which torch.save never does; save it again"
    )


def test_a_safetensors_file_with_a_huge_header_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "huge.safetensors"
    file.write_bytes((2**25).to_bytes(8, "little") + b"{}")
    os.truncate(file, 2**25 + 8)

    assert refusal(NAME, checkpoint=file) == (
        f"checkpoint {file} has a header of 33,554,432 bytes; at most 16,777,216 are read"
    )


def test_what_is_no_safetensors_file_is_called_so(tmp_path: Path) -> None:
    file = tmp_path / "bad.safetensors"
    file.write_bytes(b"not a checkpoint")

    assert refusal(NAME, checkpoint=file) == (
        f"checkpoint {file} is no safetensors file, or was cut short: its first 8 bytes name a "
        "header longer than all of it"
    )
