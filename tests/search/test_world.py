"""A run is gone on from by the same model on the same images, or begun anew."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.cells import CELL
from tests.search import tiny
from tests.search.clockless import no_clock
from tests.search.tiny import Quiet, session
from tokensearch.accuracy.store import PredictionStore
from tokensearch.data.splits import Images, Purpose, Splits, contents
from tokensearch.errors import DataError, ModelError, RunError
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.evaluation.predictions import CHUNK
from tokensearch.policy import Policy, Prune
from tokensearch.records.run_folder import RunFolder
from tokensearch.runtime import describe
from tokensearch.search.run import SearchRun

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

FRESH = "--fresh moves it to a folder within and begins anew, --out names another folder"


class Repaired:
    """Images of which one is another now, or none."""

    def __init__(self, images: Images, place: int, *, broken: bool = False) -> None:
        self._images, self._place, self._broken = images, place, broken

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self._images[index]
        if index == self._place and self._broken:
            raise DataError("image some.jpg cannot be read")
        return (image.flip(-1) if index == self._place else image), label


def repaired(purpose: Purpose, place: int, **how: bool) -> Splits:
    whole = tiny.splits()
    split = whole.of(purpose)
    other = replace(split, dataset=Repaired(split.dataset, place, **how))
    return replace(whole, **{purpose: other})


@pytest.fixture(scope="module", autouse=True)
def _no_clock() -> Iterator[None]:
    with no_clock():
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the baseline."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    session(folder, trials=2).run()
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunFolder:
    """A copy of it, to be changed."""
    return RunFolder(Path(shutil.copytree(finished, tmp_path / "run")))


def again(folder: RunFolder, **changes: Any) -> SearchRun:
    return replace(session(folder.path, trials=3), **changes)


def refusal(folder: RunFolder, **changes: Any) -> str:
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    with pytest.raises(RunError) as caught:
        again(folder, **changes).run()
    assert {path: path.read_bytes() for path in before} == before
    return str(caught.value)


def test_a_run_is_not_gone_on_from_by_another_model(run: RunFolder) -> None:
    heads, weights, code = (tiny.model() for _ in range(3))
    for block in heads.blocks:
        block.attn.num_heads, block.attn.head_dim, block.attn.scale = 12, 2, 2**-0.5
    weights.head.weight.data.mul_(2)
    code.forward_head = lambda x: code.head(code.norm(x).mean(dim=1))

    assert refusal(run, model=heads) == (
        f"run folder {run.path} holds a run of a model that was put together otherwise (modules, "
        f"their settings, hooks); {FRESH}"
    )
    assert refusal(run, model=weights) == (
        f"run folder {run.path} holds a run of other weights than those of now; {FRESH}"
    )
    assert refusal(run, model=code).startswith(f"run folder {run.path} holds a run of a model ")


def test_a_run_is_not_gone_on_from_on_other_images(run: RunFolder) -> None:
    others = replace(tiny.splits(), search=repaired("search", 3).search)

    assert refusal(run, splits=others) == (
        "1 of the 40 images of the search split are others than those the run in "
        f"{run.path} searched on; {FRESH}"
    )


def test_images_on_which_nothing_was_searched_may_be_repaired(run: RunFolder) -> None:
    one = again(run, splits=repaired("report", 5))

    one.run()

    assert one.listener.cautions[0] == (
        f"1 of the 50 images of the report split are others than those the run in {run.path} knew; "
        "what is chosen and quoted goes by those of now"
    )


def test_what_a_finished_run_quotes_is_of_the_images_of_now(run: RunFolder) -> None:
    one = replace(session(run.path, trials=2), splits=repaired("report", 5))

    before = run.read_run()

    document = one.run()

    assert before is not None
    assert document.data != before.data
    assert document.result != before.result
    assert not any("is finished" in caution for caution in one.listener.cautions)


def test_a_run_made_with_other_versions_is_not_gone_on_from(run: RunFolder) -> None:
    document = json.loads(run.run.read_text())
    document["identity"]["versions"] = "torch 1.0"
    run.run.write_text(json.dumps(document))

    assert refusal(run).startswith(
        f"run folder {run.path} holds a run made with torch 1.0, here is torch "
    )


def test_a_run_of_before_asks_for_a_fresh_start(run: RunFolder) -> None:
    document = json.loads(run.run.read_text())
    del document["identity"]
    run.run.write_text(json.dumps(document))

    assert refusal(run) == (
        f"run folder {run.path} holds a run of an earlier tokensearch, which did not write down by "
        f"what code and on which images; {FRESH}"
    )


def test_a_fresh_start_moves_what_is_ours_and_leaves_what_is_not(run: RunFolder) -> None:
    (run.path / "notes.txt").write_text("mine")
    before = run.run.read_bytes()
    listener = Quiet()

    again(run, splits=repaired("search", 3), fresh=True, listener=listener).run()
    again(run, fresh=True).run()

    first, second = run.path / "earlier-1", run.path / "earlier-2"
    assert (first / "run.json").read_bytes() == before
    assert len((first / "trials.jsonl").read_text().splitlines()) == 2
    assert len((second / "trials.jsonl").read_text().splitlines()) == 3
    assert (first / "profiles").is_dir()
    assert (first / "study.db").is_file()
    assert (run.path / "notes.txt").read_text() == "mine"
    assert not (first / "notes.txt").exists()
    assert len(run.read_trials()) == 3
    assert f"what an earlier run left in {run.path} is in {first} now" in listener.notes


def test_a_fresh_start_in_a_new_folder_is_a_start(tmp_path: Path) -> None:
    replace(session(tmp_path / "run", trials=2), fresh=True).run()

    assert not (tmp_path / "run" / "earlier-1").exists()


def test_an_image_that_cannot_be_read_is_found_before_the_search(tmp_path: Path) -> None:
    one = replace(session(tmp_path / "run", trials=2), splits=repaired("report", 49, broken=True))

    with pytest.raises(DataError, match=r"image some\.jpg cannot be read"):
        one.run()

    assert not (tmp_path / "run").exists()


def test_a_model_that_answers_by_chance_is_refused_before_the_search(tmp_path: Path) -> None:
    model: Any = tiny.model()
    model.head_drop.forward = lambda x: torch.nn.functional.dropout(x, 0.1)

    with pytest.raises(ModelError, match=r"^model tiny is not deterministic: "):
        replace(session(tmp_path / "run", trials=2), model=model).run()

    assert not (tmp_path / "run").exists()


def test_of_a_repaired_image_one_block_is_asked_again(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "answers.db")
    policy = Policy(describe(tiny.model()), (Prune(2, 5),))
    whole = PolicyEvaluator(tiny.model(), tiny.splits(), CELL, 0, store)
    other = PolicyEvaluator(tiny.model(), repaired("report", 40), CELL, 0, store)

    first, found = (one.predictions.results(policy, "report") for one in (whole, other))

    assert (whole.predictions.images_run, other.predictions.images_run) == (50, 50 - CHUNK)
    assert torch.equal(first.ce[:CHUNK], found.ce[:CHUNK])
    assert first.ce[40] != found.ce[40]


def test_an_image_has_one_name_in_every_split_and_another_when_it_changes() -> None:
    before, after = tiny.splits().report, repaired("report", 7).report

    names, others = contents(before), contents(after)

    assert len(set(names)) == len(names) == 50
    assert [place for place in range(50) if names[place] != others[place]] == [7]
    assert contents(tiny.splits().report) == names
