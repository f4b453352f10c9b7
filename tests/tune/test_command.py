"""`tokensearch tune weights` as it is typed."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.search import tiny
from tests.tune.small import bytes_of, policy
from tokensearch.cli.main import app
from tokensearch.data.bundled import bundled_splits
from tokensearch.data.splits import Sizes
from tokensearch.data.training import SplitSource, training_images
from tokensearch.errors import DataError
from tokensearch.policy import PolicySet, save, save_set

MODEL = ["--model", "tests.tune.small:model", "--images", "20,20,20", "--batch-size", "4"]
TRAIN = ["--train-data", "digits", "--lr", "1e-3", "--distill", "1", "--train-batch", "16"]


def tune(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["tune", *words])
    return done.exit_code, done.stdout, " ".join(done.stderr.split())


def folder(path: Path, *, classes: int = 5, images: int = 5) -> Path:
    generator = torch.Generator().manual_seed(0)
    for label in range(classes):
        (path / f"class{label}").mkdir(parents=True)
        for number in range(images):
            pixels = torch.randint(256, (40, 40, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(path / f"class{label}" / f"{number}.png")
    return path


def test_the_verb_writes_better_weights_and_says_what_they_change(tmp_path: Path) -> None:
    save(policy(), tmp_path / "policy.json")
    words = ("--policy", str(tmp_path / "policy.json"), "--out", str(tmp_path / "out"))

    code, out, err = tune("weights", *MODEL, *TRAIN, *words, "--steps", "40", "--json")

    document = json.loads(out)
    assert code == (0 if document["better"] else 4), err
    change = document["search"][0]
    assert (change["after"]["kl"] < change["before"]["kl"]) == document["better"]
    assert (tmp_path / "out" / "model.safetensors").exists() == document["better"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing is left to train on beside the images"),
        (("--train-data", "nowhere"), "folder nowhere does not exist"),
        (
            ("--train-data", "digits", "--precision", "fp16"),
            "in which a CPU cannot train",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_sentence(
    words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    save(policy(), tmp_path / "policy.json")
    words = ("--policy", str(tmp_path / "policy.json"), "--out", str(tmp_path / "out"), *words)

    code, _, err = tune("weights", *MODEL, *words)

    assert code == 1
    assert message in err


def drawn(path: Path, train: Path | None = None, sizes: Sizes | None = None) -> object:
    source = SplitSource(str(path), digits=False, sizes=sizes or Sizes(5, 5, 5), seed=0)
    return training_images(
        None if train is None else str(train), source, data_config=tiny.CONFIG, seed=0
    )


def test_what_the_splits_leave_over_is_trained_on(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")

    images = drawn(data)

    first, labels = images.draw(0, 10)  # type: ignore[attr-defined]
    assert torch.equal(images.draw(0, 10)[0], first)  # type: ignore[attr-defined]
    assert len({each.numpy().tobytes() for each in first}) == 10  # all that are left
    assert sorted(labels.tolist()) == sorted([0, 1, 2, 3, 4] * 2)
    with pytest.raises(DataError, match="the three splits take all 25 images"):
        drawn(data, sizes=Sizes(5, 5, 15))


def test_the_folder_train_is_taken_where_there_is_one(tmp_path: Path) -> None:
    folder(tmp_path / "data" / "val")
    folder(tmp_path / "data" / "train", images=2)

    images = drawn(tmp_path / "data")

    assert images.name == "folder train"  # type: ignore[attr-defined]


def test_images_that_are_measured_are_not_trained_on(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")

    with pytest.raises(DataError, match="holds 15 of the images that are measured"):
        drawn(data, data)


def test_pictures_that_are_measured_are_not_trained_on(tmp_path: Path) -> None:
    data = folder(tmp_path / "pictures")
    sizes = Sizes(5, 5, 5)
    source = SplitSource(None, digits=False, sizes=sizes, seed=0, pictures=data / "class0")

    with pytest.raises(DataError, match=r"holds pictures of .*class0, which are measured"):
        training_images(str(data), source, data_config=tiny.CONFIG, seed=0)
    assert training_images(str(data / "class1"), source, data_config=tiny.CONFIG, seed=0).name


def test_other_class_folders_are_refused(tmp_path: Path) -> None:
    data, train = folder(tmp_path / "data"), folder(tmp_path / "own")
    shutil.rmtree(train / "class3")

    with pytest.raises(DataError, match=r"has other class folders .* \(class3\)"):
        drawn(data, train)


def test_scenes_to_train_on_are_of_other_digits_and_follow_from_the_step() -> None:
    source = SplitSource(None, digits=True, sizes=Sizes(1, 1, 1), seed=0)
    images = training_images(None, source, data_config=tiny.CONFIG, seed=0)

    first, labels = images.draw(3, 8)

    assert torch.equal(first, images.draw(3, 8)[0])
    assert not torch.equal(first, images.draw(4, 8)[0])
    split = bundled_splits(data_config=tiny.CONFIG, sizes=Sizes(1, 1, 1)).search
    assert first.shape[1:] == split.part(0, 1)[0].shape[1:]
    assert set(labels.tolist()) <= set(range(10))


@pytest.mark.long
def test_a_training_that_is_killed_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    save(policy(), tmp_path / "policy.json")
    words = [
        "-c",
        "from tokensearch.tune import loop; loop.SAVE_S = 0.0; "
        "from tokensearch.cli.main import main; main()",
        "tune",
        "weights",
        *MODEL,
        *TRAIN,
        "--steps",
        "40",
        "--policy",
        str(tmp_path / "policy.json"),
    ]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([sys.executable, *words, "--out", str(whole)], check=False, capture_output=True)
    command = [sys.executable, *words, "--out", str(cut)]
    for lines in (1, 2, 3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and _lines(cut) < lines:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL
    subprocess.run(command, check=False, capture_output=True)

    assert bytes_of(cut) == bytes_of(whole)
    assert "checkpoint.safetensors" in bytes_of(cut)


def _lines(path: Path) -> int:
    steps = path / "steps.jsonl"
    return len(steps.read_text().splitlines()) if steps.exists() else 0


def test_a_front_without_policies_is_one_sentence(tmp_path: Path) -> None:
    save_set(PolicySet(()), tmp_path / "front.json")

    code, _, err = tune("weights", *MODEL, *TRAIN, "--policy", str(tmp_path / "front.json"))

    assert code == 1
    assert "front.json holds no policies; give a front that has some" in err


def test_a_block_that_is_not_there_is_no_budget_out_of_reach() -> None:
    code, _, err = tune("thresholds", *MODEL, "--sites", "99", "--budget", "0.6x")

    assert code == 1
    assert "blocks 0 to 3" in err
