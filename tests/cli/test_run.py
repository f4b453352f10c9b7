import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from tests.report.fixtures import run_folder
from tests.search.tiny import CONFIG, ByMacs, by_macs
from tests.search.tiny import model as tiny
from tokensearch.cli.main import app
from tokensearch.data.scenes import scenes_digest
from tokensearch.errors import ModelError
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.measure import resolve_cell
from tokensearch.policy import Policy, Threshold, load, load_set, save
from tokensearch.records.run_folder import FILES, FOLDERS, WAYS_ON, RunFolder
from tokensearch.runtime import describe

FACTORY = "tests.search.tiny:model"
# Stopped as its third trial is on the disk.
STOPPED = """
import os, signal
import tests.conftest  # as many threads as here: a run goes on in the same cell only
import tokensearch.search
from tests.search.tiny import ByMacs, by_macs
from tokensearch.cli.main import main
from tokensearch.records.run_folder import RunFolder
from tokensearch.evaluation.evaluator import PolicyEvaluator
tokensearch.search.SearchRun = ByMacs
PolicyEvaluator.time, PolicyEvaluator.profile = by_macs, lambda *_, **__: ()
append = RunFolder.append_trial
def stop(folder, trial):
    append(folder, trial)
    if trial.number == 2:
        os.kill(os.getpid(), signal.SIGTERM)
RunFolder.append_trial = stop
main()
"""
SHORT = ("--trials", "4", "--minutes", "0.2", "--images", "24,20,20", "--batch-size", "2")

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def called(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


@pytest.fixture
def _nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither model nor images are there to be loaded."""

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("tokensearch.cli.inputs.load_inputs", refuse)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    path = tmp_path / "tiny.safetensors"
    save_file(tiny().state_dict(), path)
    return str(path)


def without_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no command time anything, which takes longer than all the rest."""
    monkeypatch.setattr("tokensearch.search.SearchRun", ByMacs)
    monkeypatch.setattr(PolicyEvaluator, "time", by_macs)
    monkeypatch.setattr(PolicyEvaluator, "profile", lambda *_, **__: ())


def pictures(folder: Path, *, classes: int = 5, each: int = 20) -> str:
    """An ImageNet-style folder of small pictures that differ."""
    for kind in range(classes):
        (folder / f"class{kind}").mkdir(parents=True)
        for number in range(each):
            colour = (40 * kind, 5 * number, 100)
            Image.new("RGB", (40, 36), colour).save(folder / f"class{kind}" / f"{number}.png")
    return str(folder)


def test_a_folder_and_a_checkpoint_end_in_a_run_folder(
    tmp_path: Path, config: str, checkpoint: str
) -> None:
    data, where = pictures(tmp_path / "images"), tmp_path / "run"

    result = called(
        "run", "--model", FACTORY, "--checkpoint", checkpoint, "--data", data, "--data-config",
        config, "--latency-target", "1000ms", "--out", str(where), *SHORT,
        "--tensorboard", str(tmp_path / "board"),
    )  # fmt: skip

    assert result.exit_code == 0, result.stderr
    assert [path for path in (tmp_path / "board").iterdir() if path.stat().st_size > 200]
    assert "Target met without reducing anything" in result.stdout
    assert load(where / "policy.json") in load_set(where / "front.json").policies
    assert "# " in (where / "report.md").read_text()
    # What is not listed there may be a link to elsewhere.
    assert {path.name for path in where.iterdir()} <= {*FILES, *FOLDERS}


def test_a_secret_that_was_typed_is_in_no_file_of_the_run(
    tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, secret = tmp_path / "run", "s3cret-W0rd"
    storage = f"--storage=postgresql://me:{secret}@host/studies"
    monkeypatch.setattr("sys.argv", ["tokensearch", "run", storage])
    without_clock(monkeypatch)

    result = called(
        "run", "--model", FACTORY, "--data-config", config, "--latency-target", "1000s", "--out",
        str(where), *SHORT,
    )  # fmt: skip

    assert result.exit_code == 0, result.stderr
    left = {path: path.read_bytes() for path in where.rglob("*") if path.is_file()}
    assert [path for path, content in left.items() if secret.encode() in content] == []
    kept = "tokensearch run '--storage=postgresql://me:***@host/studies'"
    assert RunFolder(where).require_run().command == kept
    assert load(where / "policy.json").provenance["command"] == kept
    assert kept in (where / "report.md").read_text()


@pytest.mark.long
def test_a_terminated_run_exits_as_shells_say_it_and_the_same_command_goes_on(
    tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    given = (
        "run", "--model", FACTORY, "--data-config", config, "--latency-target", "0.6x", "--out",
        str(folder.path), "--trials", "6", "--images", "24,20,20", "--batch-size", "2",
    )  # fmt: skip

    stopped = subprocess.run(
        [sys.executable, "-c", STOPPED, *given],
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert (stopped.returncode, stopped.stdout) == (143, ""), stopped.stderr
    assert stopped.stderr.splitlines()[-1] == (
        "stopped; a search goes on when the same command is given again"
    )
    assert "Traceback" not in stopped.stderr
    before = folder.trials.read_bytes()
    assert len(folder.read_trials()) == 3
    without_clock(monkeypatch)
    assert called(*given).exit_code in {0, 3, 4}
    assert folder.trials.read_bytes().startswith(before)
    assert [trial.number for trial in folder.read_trials()] == list(range(6))


def test_a_target_out_of_reach_exits_with_3_and_still_leaves_the_front(
    tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = tmp_path / "run"
    without_clock(monkeypatch)

    result = called(
        "run", "--model", FACTORY, "--data-config", config, "--latency-target", "1us", "--json",
        "--out", str(where), *SHORT,
    )  # fmt: skip

    assert result.exit_code == 3, result.stderr
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert {one["event"] for one in events} <= {"stage", "note", "caution", "trial", "result"}
    told = [one for one in events if one["event"] == "trial"]
    assert [(one["number"], one["schedule_hash"], one["ratio"]) for one in told] == [
        (one.number, one.schedule_hash, one.ratio) for one in RunFolder(where).read_trials()
    ]
    assert "reading every image once" in [one.get("title") for one in events]
    assert "reading every image once" in result.stderr
    last = events[-1]
    assert (last["event"], last["exit_code"], last["outcome"]) == ("result", 3, "missed")
    assert last["run"] == json.loads((where / "run.json").read_text())
    assert load_set(where / "front.json").policies
    assert not (where / "policy.json").exists()


def test_pictures_that_cannot_be_made_cost_no_report(
    tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ModelError("a hook on a block makes new features")

    where = tmp_path / "run"
    without_clock(monkeypatch)
    monkeypatch.setattr("tokensearch.evaluation.patch_trace.write_answer_traces", fail)

    result = called(
        "run", "--model", FACTORY, "--data-config", config, "--latency-target", "1us",
        "--out", str(where), *SHORT,
    )  # fmt: skip

    assert result.exit_code == 3, result.stderr
    assert "caution: the report shows no images: a hook on a block" in result.stderr
    assert (where / "report.md").exists()


def test_a_model_whose_weights_cannot_be_had_names_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr("tokensearch.hugging_face.get_hf_file_metadata", unreachable)
    monkeypatch.setattr("tokensearch.models.try_to_load_from_cache", lambda *_: None)

    result = called(
        "run", "--model", "deit_s", "--latency-target", "5ms", "--out", str(tmp_path / "run")
    )

    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "error: the weights of deit_small_patch16_224.fb_in1k cannot be downloaded "
        "(no route to the hub); give a local file with --checkpoint FILE"
    )


TARGETS = "write 5ms, 800us, 0.6x (of the baseline) or 2000/s (images)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latency-target", "5"], f"latency target '5' cannot be read; {TARGETS}"),
        (["--latency-target=-1ms"], f"latency target '-1ms' cannot be read; {TARGETS}"),
        (["--latency-target", "0x"], f"latency target '0x' is not above zero; {TARGETS}"),
        (["--model", "diet_s"], "model 'diet_s' is unknown; the nearest are deit_s, "),
        (
            ["--model", "swin_tiny_patch4_window7_224"],
            "a SwinTransformer has stages, whose windows ",
        ),
        (["--model", "os:nothing"], "module os has no function nothing"),
        (["--data", "nowhere"], "folder nowhere does not exist"),
        (["--space", "fast"], "search space 'fast' is unknown; known are default"),
        (
            ["--images", "1,2"],
            "Invalid value: --images is '1,2'; it must be three numbers like 512,512,2000",
        ),
        (
            ["--images", "0,1,1"],
            "Invalid value: --images is '0,1,1': the search split asks for 0 images",
        ),
        (["--device", "tpu"], "device 'tpu' is not on this machine; it has cpu"),
        (
            ["--backend", "cudagraph", "--device", "cpu"],
            "backend cudagraph needs an NVIDIA GPU and runs on cpu; take eager or compile",
        ),
        (["--checkpoint", "nothing.pth"], "checkpoint nothing.pth does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    where = tmp_path / "run"

    result = called("run", "--out", str(where), *arguments)

    wrong_usage = message.startswith(("latency target", "search space", "Invalid value"))
    assert result.exit_code == (2 if wrong_usage else 1)
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith(f"error: {message}")
    assert not where.exists()


def test_an_empty_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()

    result = called("run", "--data", str(tmp_path / "images"), "--out", str(tmp_path / "run"))

    assert result.exit_code == 1
    assert result.stderr.endswith("give one with a folder of images for each class\n")


def test_too_few_images_for_three_splits_are_one_sentence(tmp_path: Path) -> None:
    data = pictures(tmp_path / "images", classes=2, each=5)

    result = called("run", "--data", data, "--out", str(tmp_path / "run"))

    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: folder {data} holds 10 images")


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    result = called("run", "--out", str(tmp_path / "file" / "run"))

    assert result.exit_code == 1
    reason = f"{tmp_path / 'file'} is a file"
    assert result.stderr == (
        f"error: run folder {tmp_path / 'file' / 'run'} cannot be written: {reason}\n"
    )


def test_a_folder_that_a_run_had_only_begun_is_gone_on_from(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create()
    for name in (".lock", ".run.json.123.part"):
        (tmp_path / name).write_text("")

    folder.create()

    assert (tmp_path / ".run.json.123.part").is_file()  # it may be another process's
    assert folder.read_run() is None


def test_the_run_json_of_another_program_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")

    result = called("run", "--out", str(tmp_path))

    assert result.exit_code == 1
    assert result.stderr == (
        f"error: the file is not of a tokensearch run (in {tmp_path / 'run.json'}, --fresh moves "
        "it to a folder within and begins anew, --out names another folder)\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("place", ["notes.txt", "policies/mine.json", "trials.jsonl"])
def test_a_folder_of_other_things_is_refused_and_left_as_it_is(tmp_path: Path, place: str) -> None:
    mine = tmp_path / place
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")

    result = called("run", "--out", str(tmp_path))

    assert result.exit_code == 1
    assert result.stderr == (
        f"error: {tmp_path} holds {place.split('/')[0]} but no run.json, so it is no run folder; "
        f"name a new or empty one with --out\n"
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--trials", "0"),
        ("--batch-size", "0"),
        ("--dtype", "int8"),
        ("--sampler", "dice"),
        ("--minutes", "inf"),
        ("--minutes", "nan"),
    ],
)
def test_wrong_usage_exits_with_2(tmp_path: Path, option: str, value: str) -> None:
    result = called("run", "--out", str(tmp_path / "run"), option, value)

    assert result.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_images_of_another_size_than_the_models_own_are_one_sentence(tmp_path: Path) -> None:
    config = tmp_path / "data.json"
    config.write_text(json.dumps({"input_size": [3, 64, 64]}))

    result = called(
        "run", "--model", FACTORY, "--data-config", str(config), "--out", str(tmp_path / "run")
    )

    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "error: input_size in the data config is [3, 64, 64], but the model takes [3, 32, 32]; "
        "build it for that size with --img-size 64"
    )
    assert not (tmp_path / "run").exists()


def test_more_class_folders_than_the_model_has_classes_are_one_sentence(tmp_path: Path) -> None:
    data = pictures(tmp_path / "images", classes=6, each=12)

    result = called("run", "--model", FACTORY, "--data", data, "--out", str(tmp_path / "run"))

    assert result.exit_code == 1
    said = result.stderr.splitlines()[-1]
    assert "error: the images (folder images) have 6 classes and model" in said


def test_a_space_that_does_not_fit_leaves_nothing(tmp_path: Path, config: str) -> None:
    space = tmp_path / "late.toml"
    default = Path(__file__).parents[2] / "search_spaces" / "default.toml"
    space.write_text(default.read_text().replace("first = 0 ", "first = 50 "))

    result = called(
        "run", "--model", FACTORY, "--data-config", config, "--space", str(space), "--out",
        str(tmp_path / "run"),
    )  # fmt: skip

    assert result.exit_code == 2
    assert "allows blocks 50 to" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_target_slower_than_the_baseline_is_said_at_once(tmp_path: Path) -> None:
    result = called(
        "run", "--latency-target", "1.5x", "--model", "diet_s", "--out", str(tmp_path / "run")
    )

    assert result.exit_code == 1
    assert result.stderr.startswith(
        "caution: --latency-target 1.5x is slower than the baseline, which meets it as it is; "
        "ask for less than 1x\n"
    )


def test_a_preset_is_evaluated_beside_the_unreduced_model(config: str) -> None:
    result = called(
        "evaluate", "last-cls", "--model", FACTORY, "--data-config", config, "--images", "20,20,30",
        "--batch-size", "2", "--confirm-seconds", "0.05", "--json",
    )  # fmt: skip

    assert result.exit_code == 0, result.stderr
    assert re.search(r"latency, in turn with the baseline\n.* rounds", result.stderr)
    found = json.loads(result.stdout)
    assert (found["accuracy"]["kind"], found["accuracy"]["images"]) == ("agreement", 30)
    assert found["accuracy"]["right"] == 30
    assert found["patch_tokens_per_block"] == [16] * 5 + [0]


def test_policies_are_compared_a_row_each_in_one_process(config: str) -> None:
    result = called(
        "evaluate", "none", "last-cls", "--model", FACTORY, "--data-config", config, "--images",
        "20,20,30", "--batch-size", "2", "--csv",
    )  # fmt: skip

    assert result.exit_code == 0, result.stderr
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["policy"] for row in rows] == ["none", "last-cls"]
    assert all(float(row["of baseline"].split("x")[0]) > 0 for row in rows)


def test_csv_and_json_exclude_one_another() -> None:
    result = called("evaluate", "none", "--csv", "--json")

    assert result.exit_code == 2
    assert (
        result.stderr == "error: Invalid value: --csv and --json are both given; give one of them\n"
    )


def test_the_bundled_scenes_serve_any_model_of_ten_classes(tmp_path: Path) -> None:
    weights = tmp_path / "vit.safetensors"
    save_file(timm.create_model("test_vit", num_classes=10).state_dict(), weights)

    result = called(
        "evaluate", "none", "--model", "test_vit", "--checkpoint", str(weights), "--data", "digits",
        "--images", "1,1,20", "--batch-size", "1", "--json",
    )  # fmt: skip

    assert result.exit_code == 0, result.stderr
    accuracy = json.loads(result.stdout)["accuracy"]
    assert (accuracy["kind"], accuracy["images"]) == ("top1", 20)
    assert accuracy["split_hash"] == scenes_digest("report", 20, 160)


def test_the_bundled_scenes_are_refused_to_a_model_of_other_classes(
    config: str, checkpoint: str
) -> None:
    result = called(
        "evaluate", "none", "--model", FACTORY, "--checkpoint", checkpoint, "--data", "digits",
        "--data-config", config, "--images", "1,1,20",
    )  # fmt: skip

    assert result.exit_code == 1
    assert "error: the images (digit scenes) have 10 classes and model" in result.stderr


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("fast", "preset 'fast' is unknown; the nearest are last-cls"),
        ("topk-5", "preset 'topk-5' is unknown; the nearest are topk-0.5, topk-0.7, "),
        ("missing.json", "missing.json does not exist; give a policy file, or the name of"),
        ("tome-r13", "preset 'tome-r13' was made for 12 blocks and 196 patch tokens; "),
    ],
)
def test_a_policy_that_cannot_be_had_is_one_sentence(
    config: str, policy: str, message: str
) -> None:
    result = called("evaluate", policy, "--model", FACTORY, "--data-config", config)

    assert result.exit_code == 1
    assert f"\nerror: {message}" in f"\n{result.stderr}"


def test_a_preset_of_another_model_can_be_carried_over(config: str) -> None:
    result = called(
        "evaluate", "topk-0.5", "--rescale", "--model", FACTORY, "--data-config", config,
        "--images", "20,20,30", "--batch-size", "2", "--json",
    )  # fmt: skip

    assert result.exit_code == 0, result.stderr
    assert "caution: topk-0.5 is carried over by ratio from 12 blocks and 196 patch" in (
        result.stderr
    )
    found = json.loads(result.stdout)
    assert found["patch_tokens_per_block"] == [16, 16, 8, 4, 4, 2]
    assert found["provenance"]["rescaled"] == "from 12 blocks and 196 patch tokens"


@pytest.fixture
def thresholds(tmp_path: Path) -> str:
    """A policy that keeps other counts for other images."""
    policy = Policy(describe(tiny()), (Threshold(1, 8, 0.06),), counts="per_image")
    save(policy, tmp_path / "thresholds.json")
    return str(tmp_path / "thresholds.json")


def test_thresholds_are_timed_eagerly_where_nobody_asks_for_a_graph(
    thresholds: str, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve_cell, "resolve_backend", lambda *_: ("cudagraph", "captured"))

    result = called(
        "evaluate", thresholds, "--model", FACTORY, "--data-config", config, "--images", "20,20,30",
        "--json",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["cell"]["backend"] == "eager"
    assert "--backend auto is eager here: the policy keeps other counts" in result.stderr


def test_thresholds_in_a_graph_are_refused_before_anything_is_run(
    thresholds: str, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve_cell, "check_named", lambda *_: None)  # there is no GPU here

    result = called(
        "evaluate", thresholds, "--model", FACTORY, "--data-config", config, "--images", "20,20,30",
        "--backend", "cudagraph",
    )  # fmt: skip

    assert "error: --backend cudagraph needs fixed counts" in result.stderr
    assert "accuracy of" not in result.stderr


def test_a_policy_of_another_model_is_refused_naming_both(tmp_path: Path, config: str) -> None:
    path = tmp_path / "policy.json"
    path.write_text(
        '{"format": "tokensearch.policy", "version": 1, "steps": [], "model": {"name": '
        '"deit_small", "blocks": 12, "patch_tokens": 196, "prefix_tokens": 1, "width": 384}}'
    )

    result = called("evaluate", str(path), "--model", FACTORY, "--data-config", config)

    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "error: the policy was made for deit_small with blocks 12; VisionTransformer has blocks 6"
    )


@pytest.mark.usefixtures("_nothing_is_loaded")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "deit_t"), "settings.model 'demo', this one has 'deit_tiny_"),
        (("--latency-target", "0.4x"), "settings.target '0.5x', this one has '0.4x'"),
        (("--seed", "9"), "settings.seed 0, this one has 9"),
    ],
)
def test_the_folder_of_another_run_is_refused_before_a_model_is_loaded(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    run_folder(tmp_path / "run")

    result = called("run", "--out", str(tmp_path / "run"), *words)

    assert result.exit_code == 1
    assert f"error: run folder {tmp_path / 'run'} holds a run with {said}" in result.stderr
    assert result.stderr.endswith(f"; {WAYS_ON}\n")


@pytest.mark.usefixtures("_nothing_is_loaded")
def test_a_run_that_was_cut_short_is_told_how_to_begin_anew(tmp_path: Path) -> None:
    where = tmp_path / "run"
    run_folder(where)
    path = RunFolder(where).run
    path.write_text(path.read_text()[:500])

    result = called("run", "--out", str(where))

    assert result.exit_code == 1
    assert result.stderr.endswith(
        f" (in {path}, --fresh moves it to a folder within and begins anew, --out names another "
        "folder)\n"
    )


@pytest.mark.usefixtures("_nothing_is_loaded")
def test_a_place_where_no_folder_can_be_made_is_refused_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir("/proc")

    result = called("run")

    assert result.exit_code == 1
    assert result.stderr.startswith("error: runs cannot be written: ")
    assert result.stderr.endswith(" (name another folder with --out)\n")


@pytest.mark.usefixtures("_nothing_is_loaded")
@pytest.mark.parametrize(
    "words",
    [
        ("run", "--device", "tpu"),
        ("evaluate", "tome-r13", "--device", "tpu"),
        ("calibrate", "nowhere/front.json", "--device", "tpu"),
        ("tune", "merger", "--block", "1", "--keep", "8", "--device", "tpu"),
    ],
)
def test_a_device_that_is_not_here_is_refused_before_a_model_is_loaded(
    words: tuple[str, ...],
) -> None:
    result = called(*words)

    assert result.exit_code == 1
    assert result.stderr.startswith("error: device 'tpu' is not on this machine; it has cpu")


@pytest.mark.usefixtures("_nothing_is_loaded")
def test_blocks_that_the_model_does_not_have_are_refused_before_it_is_loaded(
    tmp_path: Path,
) -> None:
    result = called(
        *("tune", "thresholds", "--sites", "2,5,99", "--budget", "0.6x"),
        *("--out", str(tmp_path / "thresholds.json")),
    )

    assert result.exit_code == 1
    assert "block 99" in result.stderr
