from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.tune.small import Quiet, evaluator, images, train_with_a_cut, training
from tokensearch.data.training import TrainingImages
from tokensearch.errors import ModelError, PolicyError
from tokensearch.policy import Merger
from tokensearch.runtime import policy_of
from tokensearch.tune.learned_merger import MergerResult, tune_merger
from tokensearch.tune.loop import TrainingSettings

SETTINGS = TrainingSettings(steps=12, batch=16, lr=0.02)
STEP = Merger(0, 2, "merger", scale=24**-0.5)


def tune(
    folder: Path, *, settings: TrainingSettings = SETTINGS, own: TrainingImages | None = None
) -> MergerResult:
    subject = evaluator()
    return tune_merger(subject, STEP, training(folder, subject, settings, own=own), Quiet())


def test_queries_that_learn_come_nearer_to_what_the_model_says(tmp_path: Path) -> None:
    result = tune(tmp_path)

    assert result.better
    assert result.search.after.kl < result.search.before.kl
    assert result.policy.schedule_hash == result.search.policy.schedule_hash


def test_the_average_of_queries_is_the_result_where_one_is_asked_for(tmp_path: Path) -> None:
    plain = tune(tmp_path / "plain")
    averaged = tune(tmp_path / "averaged", settings=replace(SETTINGS, ema=0.9))

    assert averaged.search.after.kl < averaged.search.before.kl
    assert averaged.search.policy != plain.search.policy


def test_queries_that_become_worse_stay_as_they_began(tmp_path: Path) -> None:
    result = tune(tmp_path, settings=replace(SETTINGS, steps=3, lr=100.0))

    assert not result.better
    assert result.policy.schedule_hash != result.search.policy.schedule_hash


def test_the_model_is_left_without_a_policy_and_with_its_weights(tmp_path: Path) -> None:
    subject = evaluator()
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}

    tune_merger(subject, STEP, training(tmp_path, subject, replace(SETTINGS, steps=1)), Quiet())

    assert policy_of(subject.model) is None
    assert before.keys() == subject.model.state_dict().keys()
    for name, value in subject.model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.long
def test_a_training_of_queries_that_is_cut_off_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, again = train_with_a_cut(tune, tmp_path, monkeypatch)

    assert again.policy == whole.policy


def test_a_merger_after_the_last_block_is_refused(tmp_path: Path) -> None:
    subject = evaluator()

    with pytest.raises(ModelError, match="needs a block that follows"):
        tune_merger(subject, Merger(3, 2, "m"), training(tmp_path, subject, SETTINGS), Quiet())


def test_queries_learn_from_images_that_are_mixed(tmp_path: Path) -> None:
    result = tune(
        tmp_path, settings=replace(SETTINGS, steps=2, mixup=0.8), own=images(labelled=True)
    )

    assert result.policy.schedule_hash


@pytest.mark.parametrize("step", [replace(STEP, keep=100_000), replace(STEP, scale=0.0)])
def test_a_step_that_cannot_be_is_refused_before_anything_is_clustered(
    step: Merger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokensearch.tune.merger.k_means", None)
    subject = evaluator()

    with pytest.raises(PolicyError):
        tune_merger(subject, step, training(tmp_path, subject, SETTINGS), Quiet())
