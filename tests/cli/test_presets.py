import json

import pytest
from typer.testing import CliRunner

from tokensearch.cli.main import app, spread_words
from tokensearch.cli.options import read_options
from tokensearch.policy import PRESETS


def called(*args: str) -> str:
    """What `tokensearch presets` prints."""
    result = CliRunner().invoke(app, ["presets", *args])
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_every_preset_that_fits_has_a_row() -> None:
    said = called()

    for name, preset in PRESETS.items():
        assert (f"\n {name} " in said) == (preset.blocks in {12, None})
    assert "  146 96 48    0.364   62.2 %  PPT, arXiv:2310.01812" in said
    assert "  183 .. 40    0.330   56.5 %  ToMe, arXiv:2210.09461" in said


def test_the_table_fits_a_hundred_columns() -> None:
    table = called("--model", "deit_b").split("Left out")[0]

    assert max(len(line.rstrip()) for line in table.splitlines()) <= 100


def test_what_is_left_out_is_named_with_the_way_to_have_it() -> None:
    said = " ".join(called().split())

    assert "Left out, made for 24 blocks and 196 patch tokens: tome-l-r5, tome-l-r6, " in said
    assert "diffrate-mae-l-46.1; --rescale carries them over by ratio." in said
    assert "These names take any number: tome-rN, tome-decN, " in said


def test_rescaling_leaves_nothing_out() -> None:
    said = called("--rescale")

    for name in PRESETS:
        assert f"\n {name} " in said
    assert "\nCarried over by ratio, made for 24 blocks and 196 patch tokens: tome-l-r5, " in said
    assert "Left out" not in said


def test_a_grid_that_cannot_be_pooled_is_left_out_even_so() -> None:
    said = called("--model", "vit_small_patch14_dinov2", "--rescale")  # 37 x 37

    assert "patch tokens: avgpool-grid; cannot be carried over.\n" in said


def test_a_model_without_class_token_is_told_how_to_rank() -> None:
    said = called("--model", "vit_base_patch16_siglip_224")

    assert "Without a class token" in said
    assert "\n last-cls " not in said


def test_json_says_which_fit() -> None:
    found = {
        item["name"]: item
        for item in json.loads(called("--model", "vit_large_patch32_384", "--json"))
    }

    assert list(found) == list(PRESETS)
    assert found["none"]["fits"]
    assert found["none"]["mac_share"] == 1
    assert not found["tome-r13"]["fits"]
    assert found["tome-r13"]["made_for"] == {"blocks": 12, "patch_tokens": 196}


def test_json_says_what_was_rescaled() -> None:
    arguments = ("--model", "vit_large_patch32_384", "--rescale", "--json")
    found = {item["name"]: item for item in json.loads(called(*arguments))}

    assert found["tome-r13"]["rescaled"]
    assert not found["none"]["rescaled"]
    assert 0 < found["tome-r13"]["macs"] < found["none"]["macs"]


def test_a_size_and_other_arguments_build_the_model() -> None:
    sized = called("--model", "vit_t", "--img-size", "96")

    assert "36 patch tokens" in sized
    assert sized == called("--model", "vit_t", "--model-kwargs", "img_size=96")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--img-size", "200"), "img_size 200 is no multiple of the model's patches of 16 pixels"),
        (("--model-kwargs", "wings=2"), "cannot be built with wings=2"),
        (("--model-kwargs", "wings"), "--model-kwargs is 'wings'; it must be KEY=VALUE"),
        (
            ("--img-size", "96", "--model-kwargs", "img_size=80"),
            "--img-size is 96 and --model-kwargs has img_size=80; give one of them",
        ),
    ],
)
def test_arguments_that_no_model_takes_are_one_sentence(
    options: tuple[str, ...], said: str
) -> None:
    result = CliRunner().invoke(app, ["presets", "--model", "vit_t", *options])

    assert result.exit_code != 0
    assert said in result.stderr.splitlines()[-1]


def test_pairs_may_follow_one_option_as_in_timms_scripts() -> None:
    words = ["run", "--model-kwargs", "a=1", "b=x", "--img-size", "96", "c=3"]

    assert spread_words(words) == [
        "run", "--model-kwargs", "a=1", "--model-kwargs", "b=x", "--img-size", "96", "c=3",
    ]  # fmt: skip
    assert read_options("96", ["a=1", "b=x", "c=(2, 3)"]) == {
        "a": 1, "b": "x", "c": (2, 3), "img_size": 96,
    }  # fmt: skip
