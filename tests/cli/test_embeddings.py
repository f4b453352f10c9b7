"""Models without a classifier: every verb judges them by their embeddings, and says so."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from tests.cli.test_run import called, pictures
from tests.search.clockless import no_clock_in_runs
from tests.search.tiny import CONFIG
from tokensearch.policy import load_set
from tokensearch.records.run_folder import RunFolder

FACTORY = "tests.search.tiny:headless"
SHORT = ("--trials", "4", "--images", "24,20,20", "--batch-size", "2")
OF_CLASSES = re.compile(r"top.?1|agree", re.IGNORECASE)

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def _no_clock() -> Iterator[None]:
    """What timings say is not tested here, so none is taken."""
    with no_clock_in_runs():
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "data.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return pictures(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, config: str) -> RunFolder:
    """A finished run on crops of photographs."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "headless")
    result = search(folder, "--data-config", config)
    assert result.exit_code == 0, result.output
    return folder


def search(folder: RunFolder, *more: str) -> Result:
    return called(
        "run", "--model", FACTORY, *SHORT, "--latency-target", "0.9x", "--out", str(folder.path),
        *more,
    )  # fmt: skip


def error_of(result: Result) -> str:
    """The error, which is one line."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    return result.stderr.splitlines()[-1]


def test_a_search_of_embeddings_ends_in_a_run_folder(source: RunFolder) -> None:
    run = source.require_run()

    assert run.settings.objective == "cosine"
    assert run.finished.outcome == "met"
    assert run.finished.answer is not None
    assert 0.9 < 1 - run.finished.answer.report.divergence < 1


def test_no_file_of_such_a_run_speaks_of_classes(source: RunFolder) -> None:
    for file in (source.run, source.trials, source.front, source.policy, source.report):
        assert OF_CLASSES.findall(file.read_text()) == [], file.name
    page = source.report.read_text()
    assert "recall@1" in page
    assert "| cosine |" in page


def test_a_set_of_embedding_policies_answers_other_targets(source: RunFolder) -> None:
    policies = load_set(source.front)

    assert policies.best(latency="0.9x").reduces
    assert not policies.best(latency="1x").reduces


@pytest.mark.long
def test_a_finished_search_goes_on_with_the_same_command(
    source: RunFolder, config: str, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    first = search(folder, "--data-config", config, "--trials", "3")
    assert first.exit_code == 0, first.output

    again = search(folder, "--data-config", config)

    assert again.exit_code == 0, again.output
    assert len(folder.read_trials()) == 4
    assert folder.require_run().budget.trials == 4


def test_a_run_of_embeddings_is_retargeted(source: RunFolder, tmp_path: Path) -> None:
    result = called(
        "retarget", str(source.path), "--model", FACTORY, "--latency-target", "0.95x", "--out",
        str(tmp_path / "again"),
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    assert "Its recall@1 is" in result.stdout
    assert OF_CLASSES.findall(result.stdout) == []


def test_a_report_is_drawn_again(source: RunFolder) -> None:
    result = called("report", str(source.path))

    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("objective", ["knn", "probe"])
def test_class_folders_are_judged_by_what_reads_classes_from_embeddings(
    objective: str, config: str, data: str, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")

    result = search(folder, "--data-config", config, "--data", data, "--objective", objective)

    assert result.exit_code == 0, result.output
    report = json.loads(folder.run.read_text())["result"]["finalists"][0]["report"]
    assert report["right_by"] == objective
    assert report["share"] == report[objective]
    assert f"{'k-NN' if objective == 'knn' else 'probe'} accuracy is" in result.stdout


def test_an_evaluation_shows_every_figure(config: str, data: str) -> None:
    arguments = ("evaluate", "topk-0.5", "--rescale", "--model", FACTORY, "--data-config", config)
    more = ("--data", data, "--images", "24,20,20", "--batch-size", "2")

    shown, written = called(*arguments, *more), called(*arguments, *more, "--json")

    assert shown.exit_code == 0, shown.output
    for name in ("recall@1", "recall@10", "cosine", "k-NN accuracy", "probe accuracy"):
        assert name in shown.stdout
    accuracy = json.loads(written.stdout)["accuracy"]
    assert {"cosine", "recall_at_1", "recall_at_10", "knn", "probe"} <= accuracy.keys()
    assert OF_CLASSES.findall(written.stdout) == []


def test_tokens_are_judged_patch_by_patch(config: str) -> None:
    result = called(
        "evaluate", "tome-r1", "--rescale", "--model", FACTORY, "--model-kwargs", "global_pool=",
        "--data-config", config, "--images", "24,20,20", "--batch-size", "2", "--json",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    accuracy = json.loads(result.stdout)["accuracy"]
    assert accuracy["kind"] == "dense"
    assert 0 < accuracy["cosine"] < 1


def test_thresholds_found_by_embeddings_are_told_by_them(config: str, tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"

    result = called(
        "tune", "thresholds", "--sites", "1,3", "--budget", "0.6x", "--model", FACTORY,
        "--data-config", config, "--images", "24,20,20", "--out", str(path),
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    assert re.search(r"\nthresholds: recall@1 [\d.]+ %, cosine [\d.]+, .* on select", result.stdout)
    assert re.search(r"\nbetter: .* recall@1 ", result.stdout)
    assert OF_CLASSES.findall(result.stdout) == []


@pytest.mark.parametrize("objective", ["kl", "top1"])
def test_embeddings_are_no_scores_of_classes(objective: str, tmp_path: Path) -> None:
    result = search(RunFolder(tmp_path / "run"), "--objective", objective)

    assert error_of(result) == (
        f"error: --objective is {objective}, but model {FACTORY} has no classifier, and its "
        "embeddings are no scores of classes; take cosine, knn or probe, or give weights with a "
        "head by --checkpoint FILE"
    )
    assert not (tmp_path / "run").exists()


def test_a_probe_without_labels_is_one_sentence(config: str, tmp_path: Path) -> None:
    result = search(RunFolder(tmp_path), "--data-config", config, "--objective", "probe")

    assert "error: --objective probe needs labels of two classes at least" in error_of(result)


def test_one_class_is_too_few_to_tell_apart(config: str, tmp_path: Path) -> None:
    data = pictures(tmp_path / "images", classes=1, each=70)

    result = search(
        RunFolder(tmp_path / "run"), "--data-config", config, "--data", data, "--objective", "knn"
    )

    assert error_of(result) == (
        "error: --objective knn needs labels of two classes at least, and the images "
        "(folder images) have one class; give --data a folder of class folders, or take "
        "--objective cosine"
    )


def test_pictures_of_one_s_own_are_counted_in_the_output(config: str, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for number in range(3):
        ramp = np.linspace(0, 80 * (number + 1), 300).astype(np.uint8)
        Image.fromarray(np.stack([np.tile(ramp, (120, 1))] * 3, axis=-1)).save(
            folder / f"{number}.png"
        )
    arguments = ("evaluate", "topk-0.5", "--rescale", "--model", FACTORY, "--data-config", config)
    more = ("--images-from", str(folder), "--images", "24,20,20", "--batch-size", "2")

    result = called(*arguments, *more)
    both = called(*arguments, *more, "--data", str(folder))

    assert result.exit_code == 0, result.output
    assert "images: crops of 3 pictures in own" in result.stderr
    assert both.exit_code == 2
    assert "--images-from is" in both.stderr
