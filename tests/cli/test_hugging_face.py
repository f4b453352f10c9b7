"""`--model hf:FOLDER`: models of transformers in every verb that loads a model."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("transformers", reason="needs transformers: install tokensearch[transformers]")

from tests.cli.test_run import called
from tests.hugging_face import PROCESSORS, save
from tests.runtime.towers import build
from tests.search.clockless import no_clock_in_runs
from tokensearch import hugging_face
from tokensearch.policy import load, preset
from tokensearch.policy import save as save_policy
from tokensearch.records.run_folder import RunFolder
from tokensearch.runtime import describe

IMAGES = ("--images", "24,20,20", "--batch-size", "2")

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What timings say is not tested here, and nothing asks the hub."""

    def away(*_: object, **__: object) -> None:
        raise OSError("the hub cannot be reached")

    monkeypatch.setattr(hugging_face, "get_hf_file_metadata", away)
    with no_clock_in_runs():
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: save(name, root / name) for name in PROCESSORS}


def said(result: Any) -> str:
    """Return what a refused command says, in one line; it has one sentence."""
    assert result.exit_code == 1, result.output
    return " ".join(result.stderr.split())


def coloured(folder: Path, names: tuple[str, ...], each: int = 24) -> Path:
    """Write images of as many hues as names."""
    generator = torch.Generator().manual_seed(0)
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            noise = torch.randint(0, 60, (32, 32, 3), generator=generator, dtype=torch.uint8)
            noise[..., number % 3] += 180
            Image.fromarray(noise.numpy()).save(folder / name / f"{index}.png")
    return folder


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_folder_is_shown_and_evaluated(name: str, folders: dict[str, Path]) -> None:
    model = f"hf:{folders[name]}"

    shown = called("show", "tome-r1", "--rescale", "--model", model, "--json")
    judged = called("evaluate", "tome-r1", "--rescale", "--model", model, *IMAGES, "--json")

    assert judged.exit_code == shown.exit_code == 0, shown.output + judged.output
    assert json.loads(shown.stdout)["model"]["name"] == model
    assert f"model {model} on " in judged.stderr
    embeds = "cosine" in json.loads(judged.stdout)["accuracy"]
    assert embeds is ("ForImage" not in name)


def test_a_run_finds_a_policy_that_applies_to_one_s_own_model(
    folders: dict[str, Path], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    import tokensearch

    name, run = "ViTForImageClassification", RunFolder(tmp_path / "run")
    model = f"hf:{folders[name]}"
    arguments = ("run", "--model", model, *IMAGES, "--latency-target", "0.9x")

    first = called(*arguments, "--trials", "5", "--out", str(run.path))
    again = called(*arguments, "--trials", "7", "--out", str(run.path))
    moved = called("retarget", str(run.path), "--model", model, "--latency-target", "0.95x",
                   "--out", str(tmp_path / "moved"))  # fmt: skip

    assert first.exit_code == again.exit_code == moved.exit_code == 0, first.output + moved.output
    record = run.require_run()
    assert record.model.name == model
    assert "transformers" in record.identity.versions
    assert model in run.report.read_text()
    policy = load(run.policy)
    assert policy.model.weights is not None
    recwarn.clear()
    own = type(build(name)).from_pretrained(folders[name])
    tokensearch.apply(own, policy)
    assert not recwarn.list  # the weights are those that it was found on


def test_a_stored_name_is_loaded_only_if_the_user_gives_it(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    spec = describe(build("ViTForImageClassification"), name="hf:someone/model")
    save_policy(preset("tome-r1", spec, rescale=True), file)

    assert "give --model 'hf:" in said(called("profile", "--policy", str(file)))


def test_another_size_resamples_positions(folders: dict[str, Path]) -> None:
    for name in ("ViTForImageClassification", "Dinov2Model", "SiglipVisionModel"):
        result = called(
            "evaluate", "tome-r1", "--rescale", "--model", f"hf:{folders[name]}", "--img-size",
            "48x32", *IMAGES, "--json",
        )  # fmt: skip

        assert result.exit_code == 0, result.output
        cell = json.loads(result.stdout)["cell"]
        assert (cell["resolution"], cell["columns"]) == (48, 32)


def test_folders_that_are_called_as_the_model_s_classes_have_their_numbers(tmp_path: Path) -> None:
    names = {0: "red", 1: "green", 2: "blue"}
    folder = save("ViTForImageClassification", tmp_path / "model", id2label=names, num_labels=3)
    data = coloured(tmp_path / "images", tuple(names.values()))
    model = ("--model", f"hf:{folder}", "--data", str(data), *IMAGES)
    numbers = tmp_path / "map.txt"
    numbers.write_text("red\ngreen\nblue\n")

    own = called("evaluate", "tome-r1", "--rescale", *model, "--json")
    mapped = called("evaluate", "tome-r1", "--rescale", *model, "--class-map", str(numbers),
                    "--json")  # fmt: skip
    (data / "blue").rename(data / "azure")
    partly = called("evaluate", "tome-r1", "--rescale", *model, "--json")

    assert own.exit_code == mapped.exit_code == 0, own.output
    assert json.loads(own.stdout)["accuracy"] == json.loads(mapped.stdout)["accuracy"]
    assert "the model has no class 'azure'" in " ".join(partly.stderr.split())


def test_arguments_are_attributes_of_the_configuration(folders: dict[str, Path]) -> None:
    model = ("--model", f"hf:{folders['ViTForImageClassification']}")

    eager = called("evaluate", "tome-r1", "--rescale", *model, *IMAGES, "--json",
                   "--model-kwargs", "attn_implementation=eager")  # fmt: skip
    strange = called("show", "tome-r1", *model, "--model-kwargs", "trust_remote_code=True")

    assert json.loads(eager.stdout)["cell"]["attention"] == "explicit"
    assert said(strange).endswith(
        "takes no trust_remote_code; --model-kwargs are attributes of its ViTConfig, or "
        "attn_implementation"
    )


def test_a_model_without_an_image_processor_needs_a_data_config(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["ViTForImageClassification"], folder)
    (folder / "preprocessor_config.json").unlink()
    (tmp_path / "data.json").write_text('{"mean": [0.5, 0.5, 0.5], "crop_pct": 1.0}')
    arguments = ("evaluate", "tome-r1", "--rescale", "--model", f"hf:{folder}", *IMAGES)

    assert "has no image processor" in said(called(*arguments))
    result = called(*arguments, "--data-config", str(tmp_path / "data.json"))

    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (None, "has no config.json; give one that save_pretrained wrote"),
        ({"model_type": "swin", "architectures": ["SwinModel"]}, "is a SwinModel; supported are"),
        ({"model_type": "beit"}, "is a model of type 'beit'; supported are"),
        ({"model_type": "resnet", "architectures": ["ResNetForImageClassification"]},
         "is a ResNetForImageClassification; supported are"),
        ({"architecture": "vit_base_patch16_224"}, "is a model of timm's; give --model local-dir:"),
        ({"model_type": "vit", "auto_map": {"AutoModel": "evil.Model"}, "num_hidden_layers": 2,
          "hidden_size": 48, "num_attention_heads": 3, "image_size": 32, "patch_size": 8},
         "has no safetensors"),
    ],
)  # fmt: skip
def test_a_folder_of_another_kind_is_one_sentence(
    tmp_path: Path, config: dict[str, Any] | None, sentence: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "evil.py").write_text("raise SystemExit('code beside weights was run')")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))

    result = called("evaluate", "tome-r1", "--rescale", "--model", f"hf:{folder}", *IMAGES)

    assert sentence in said(result)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nobody/nothing", "the configuration of hf:nobody/nothing cannot be read"),
        ("./nowhere", "./nowhere is not a folder; give one that save_pretrained wrote"),
        ("", "hf: is not a folder"),
    ],
)
def test_a_name_that_cannot_be_had_is_one_sentence(name: str, sentence: str) -> None:
    assert sentence in said(called("show", "tome-r1", "--model", f"hf:{name}"))


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugging_face, "find_spec", lambda _: None)

    assert "needs transformers; pip install 'tokensearch[transformers]'" in said(
        called("show", "tome-r1", "--model", "hf:facebook/dinov2-small")
    )


@pytest.mark.parametrize("size", ["30", "48x30"])
def test_a_size_that_patches_do_not_fill_is_one_sentence(
    folders: dict[str, Path], size: str
) -> None:
    model = f"hf:{folders['ViTForImageClassification']}"

    result = called("show", "tome-r1", "--model", model, "--img-size", size)

    assert "img_size 30 is no multiple of the model's patches of 8 pixels" in said(result)
