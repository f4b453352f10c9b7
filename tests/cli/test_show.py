import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tests.report.fixtures import FOUND, front, run_document, run_folder
from tokensearch.cli.inputs import DEMO_SPEC
from tokensearch.cli.main import app
from tokensearch.models import DEMO, skeleton
from tokensearch.policy import save, save_set
from tokensearch.report.run.sentences import target_sentence
from tokensearch.report.run.tables import token_strip
from tokensearch.runtime import describe


def called(*args: str) -> Result:
    return CliRunner().invoke(app, ["show", *args])


def test_what_is_known_of_the_bundled_model_is_what_it_is() -> None:
    assert replace(describe(skeleton(DEMO, {})), name=DEMO) == DEMO_SPEC


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A policy file with evidence."""
    save(front().policies[0], tmp_path / "policy.json")
    return tmp_path / "policy.json"


def test_a_file_is_shown_with_its_evidence(file: Path) -> None:
    result = called(str(file))

    assert (result.exit_code, result.stderr) == (0, "")
    assert "demo: 12 blocks, 196 patch tokens, 1 prefix token, width 128\n██▅▅▅▃▃▃▂▂▂·" in (
        result.stdout
    )
    assert "prune to 80 then pool to 64" in result.stdout
    assert "97.3 % [96.5, 98.0]" in result.stdout
    assert "0.48x [0.47, 0.49]" in result.stdout


def test_a_front_is_shown_a_row_per_policy(tmp_path: Path) -> None:
    save_set(front(), tmp_path / "front.json")

    result = called(str(tmp_path / "front.json"))

    assert (result.exit_code, result.stderr) == (0, "")
    assert "demo: 12 blocks, 196 patch tokens" in result.stdout
    for policy in front().policies:
        assert token_strip(policy) in result.stdout
    assert json.loads(called(str(tmp_path / "front.json"), "--json").stdout)["policies"]


def test_a_run_says_its_verdict_and_where_its_files_are(tmp_path: Path) -> None:
    run_folder(tmp_path)

    result = called(str(tmp_path))

    assert result.exit_code == 0
    assert target_sentence(run_document()) in " ".join(result.stdout.split())
    assert f"report  {tmp_path / 'report.md'}" in result.stdout
    assert json.loads(called(str(tmp_path), "--json").stdout)["format"] == "tokensearch.run"


def test_a_run_without_an_answer_says_how_to_go_on(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    folder.write_run(replace(run_document(), result=None))

    said = called(str(tmp_path)).stdout

    assert said.startswith("the search of demo for 0.5x has not ended\n30 trials so far in")
    assert said.rstrip().endswith(run_document().command)


def test_a_folder_that_is_no_run_is_said_in_one_sentence(tmp_path: Path) -> None:
    result = called(str(tmp_path))

    assert result.exit_code == 1
    assert result.stderr == f"error: {tmp_path} holds no run.json, so it is no run folder\n"


def test_a_file_that_is_not_there_is_said_in_one_sentence(tmp_path: Path) -> None:
    result = called(f"{tmp_path}/none.json")

    assert result.exit_code == 1
    assert result.stderr == (
        f"error: {tmp_path}/none.json does not exist; give a policy, a front, the folder of a "
        f"run, or the name of a preset\n"
    )


# Command lines, each with its exit code. None of these needs a model, so none may load torch.
LIGHT: dict[tuple[str, ...], int] = {
    ("show", "nonsense"): 1,
    ("show", "random-nonsense"): 1,
    ("show", "tome-r13"): 0,
    ("show", "tests/golden/demo_run"): 0,
    ("presets",): 0,
    ("evaluate", "nonsense"): 1,
    ("evaluate", "README.md"): 1,
    ("evaluate", "tome-r13", "--data", "nowhere"): 1,
    ("evaluate", "tome-r13", "--checkpoint", "nowhere.pth"): 1,
    ("evaluate", "tome-r13", "--images", "1,2"): 2,
    ("evaluate", "tome-r13", "--img-size", "large"): 2,
    ("evaluate", "tome-r13", "--model-kwargs", "depth"): 2,
    ("evaluate", "tome-r13", "--confirm-seconds", "0"): 2,
    ("run", "--data", "nowhere"): 1,
    ("run", "--images-from", "nowhere"): 1,
    ("run", "--out", "/proc/run"): 1,
    ("run", "--images-from", "tests", "--data", "digits"): 2,
    ("run", "--latency-target", "0x"): 2,
    ("run", "--latency-target", "fast"): 2,
    ("run", "--max-drop=-1"): 2,
    ("run", "--images", "0,1,1"): 2,
    ("run", "--minutes", "nan"): 2,
    ("run", "--resolutions", "0"): 2,
    ("run", "--dtypes", "int8"): 2,
    ("run", "--backends", "fast"): 2,
    ("run", "--from", "nowhere.json"): 1,
    ("run", "--smaller-checkpoint", "nowhere.pth"): 2,
    ("run", "--smaller", "deit_t", "--smaller-checkpoint", "nowhere.pth"): 1,
    ("retarget", "tests/golden/demo_run", "--latency-target", "0x"): 2,
    ("retarget", "tests/golden/demo_run"): 2,
    ("retarget", "tests/golden", "--latency-target", "0.5x"): 1,
    ("tune", "thresholds", "--sites", "some", "--budget", "0.6x"): 2,
    ("tune", "thresholds", "--sites", "2", "--budget", "2x"): 2,
    ("tune", "thresholds", "--sites", "2,5,99", "--budget", "0.6x"): 1,
    ("tune", "thresholds", "--sites", "2", "--budget", "5ms"): 2,
    ("tune", "thresholds", "--sites", "2", "--budget", "0.6x", "--score", "none"): 2,
    ("tune", "weights", "--policy", "nonsense"): 1,
    ("tune", "merger", "--block", "1", "--keep", "8", "--data", "nowhere"): 1,
    ("export", "nonsense"): 1,
    ("export", "tome-r13", "--out", "model.pt2"): 1,
    ("export", "tome-r13", "--out", "nowhere/model.onnx"): 1,
    ("export", "tome-r13", "--out", "/proc/model.onnx"): 1,
}


@cache
def light_results() -> dict[tuple[str, ...], tuple[int, list[str]]]:
    """Exit code of every light command line, and what it has loaded, in one process."""
    code = (
        "import json, sys; from typer.testing import CliRunner; "
        "from tokensearch.cli.main import app\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    done = CliRunner().invoke(app, words)\n"
        "    loaded = [m for m in ('torch', 'timm', 'numpy') if m in sys.modules]\n"
        "    print(json.dumps((words, done.exit_code, loaded)))"
    )
    command = [sys.executable, "-c", code, json.dumps(list(LIGHT))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = map(json.loads, done.stdout.splitlines())
    return {tuple(words): (exit_code, loaded) for words, exit_code, loaded in lines}


@pytest.mark.parametrize("words", LIGHT)
def test_names_paths_and_values_are_looked_at_before_torch_is_loaded(
    words: tuple[str, ...],
) -> None:
    assert light_results()[words] == (LIGHT[words], [])


def test_json_is_json_alone(file: Path) -> None:
    result = called(str(file), "--json")

    document = json.loads(result.stdout)
    assert document["schedule_hash"] == FOUND.schedule_hash
    assert document["patch_tokens_per_block"] == list(FOUND.patch_tokens_per_block)
    assert sum(document["block_macs"]) > 0


def test_a_preset_is_built_for_the_demo_model() -> None:
    assert "pool to 183" in called("tome-r13").stdout


def test_a_preset_says_what_it_is_and_where_it_comes_from() -> None:
    said = called("tome-r13").stdout

    assert "\ntome-r13: merge 13 similar tokens in every block (ToMe, arXiv:2210.09461)\n" in said
    assert "carried over" not in said


def test_a_rescaled_preset_says_so() -> None:
    said = called("tome-l-r8", "--rescale").stdout

    assert (
        "\ntome-l-r8 is carried over by ratio from 24 blocks and 196 patch tokens, "
        "and is no published schedule\n"
    ) in said


def test_a_preset_that_only_another_version_knows_is_shown_without_it(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    save(replace(FOUND, provenance={"preset": "later"}), path)

    assert called(str(path)).exit_code == 0


def test_an_unknown_preset_is_answered_with_the_nearest() -> None:
    result = called("tome-14")

    assert result.exit_code == 1
    assert result.stderr == (
        "error: preset 'tome-14' is unknown; the nearest are tome-r16, tome-r13, tome-r8\n"
    )


def test_a_file_that_is_no_policy_is_named(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text("{", encoding="utf-8")

    result = called(str(file))

    assert result.exit_code == 1
    assert result.stderr == (
        "error: the file is not JSON: Expecting property name enclosed in double quotes: "
        f"line 1 column 2 (char 1) (in {file})\n"
    )


@pytest.mark.parametrize(
    ("record", "fields", "sentence"),
    [
        ("accuracy", {"top1": 0.9, "low": 0.8}, "evidence lacks the field 'high'"),
        (
            "latency",
            {"median_ms": "fast"},
            "evidence[0].latency.median_ms is 'fast'; it must be a number from 1e-09 to 1e+09",
        ),
        (
            "cell",
            {"batch": 8, "machine": "mine"},
            "evidence[0].cell.machine is 'mine'; it must be an object",
        ),
    ],
)
def test_damaged_evidence_is_an_error_and_no_traceback(
    file: Path, record: str, fields: dict[str, object], sentence: str
) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    document["evidence"][0][record] = fields
    file.write_text(json.dumps(document), encoding="utf-8")

    result = called(str(file))

    assert result.exit_code == 1
    said = result.stderr.removesuffix("\n").removesuffix(f" (in {file})")
    assert said == f"error: {sentence}"


PHOTOGRAPHS = Path(__file__).parents[2] / "tokensearch" / "data" / "photographs"
CAT = str(PHOTOGRAPHS / "chelsea.jpg")


def test_images_are_drawn_under_two_policies(tmp_path: Path) -> None:
    picture = tmp_path / "cat.png"
    images = ("--image", CAT, "--image", str(PHOTOGRAPHS / "rocket.jpg"))

    result = called("ppt-r50", *images, "--beside", "tome-r13", "--out", str(picture), "--json")

    assert result.exit_code == 0
    patches = json.loads(result.stdout)["patches"]
    assert [(one["policy"], one["image"]) for one in patches] == [
        ("ppt-r50", "chelsea.jpg"),
        ("ppt-r50", "rocket.jpg"),
        ("tome-r13", "chelsea.jpg"),
        ("tome-r13", "rocket.jpg"),
    ]
    last = patches[2]["token_of_patch_by_block"][-1]
    assert sorted(set(last)) == list(range(196 - 12 * 13))
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"


def test_a_rectangle_is_drawn_by_the_model_of_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("topk-0.5", "--model", "tests.search.tiny:model", "--img-size", "32x64", "--rescale")

    result = called(*words, "--image", CAT)

    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith("picture  patches.png\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tome-r13", "--beside", "topk-0.5"], "--beside, --out, --checkpoint and --data-config"),
        (["tome-r13", "--image", "none.jpg"], "image none.jpg does not exist; give an image file"),
        (["tome-r13", "--image", "."], "image . is a folder; give an image file"),
        (
            ["tome-r13", "--image", CAT, "--out", "none/a.png"],
            "folder none of --out does not",
        ),
        (["tome-r13", "--image", CAT, "--out", "a.txt"], "picture a.txt must end in .png, .webp"),
        (["tome-r13", "--image", __file__], f"image {__file__} cannot be read: it is none of JPEG"),
        (["nonsense", "--image", CAT], "preset 'nonsense' is unknown"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    result = called(*words)

    assert result.exit_code in {1, 2}
    assert result.stderr.replace("Invalid value: ", "").startswith(f"error: {sentence}")
    assert result.stderr.count("\n") == 1


def test_of_a_front_one_policy_must_be_chosen_to_draw(tmp_path: Path) -> None:
    save_set(front(), tmp_path / "front.json")

    said = called(str(tmp_path / "front.json"), "--image", CAT).stderr

    assert said.startswith(f"error: {tmp_path}/front.json is a front; give one of its policies")
