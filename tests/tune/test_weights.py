import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tune.small import (
    Quiet,
    evaluator,
    images,
    images_until,
    model,
    policy,
    train_with_a_cut,
    training,
)
from tokensearch.data.training import TrainingImages
from tokensearch.errors import DataError, PolicyError, RunError, TrainingError
from tokensearch.models import load_model, resolve_model
from tokensearch.policy import Policy, Threshold, load
from tokensearch.runtime import applied, describe, policy_of
from tokensearch.tune import loop
from tokensearch.tune.checkpoint import TrainingFolder
from tokensearch.tune.distillation import make_distillation
from tokensearch.tune.loop import Trainer, TrainingBatch, TrainingSettings
from tokensearch.tune.weights import WeightsResult, tune_weights

PLAN = TrainingSettings(steps=12, batch=16, lr=1e-3)


def tune(
    folder: Path,
    *policies: Policy,
    plan: TrainingSettings = PLAN,
    own: TrainingImages | None = None,
    distill: float | None = None,
    watcher: Quiet | None = None,
) -> WeightsResult:
    subject, data = evaluator(), own or images()
    return tune_weights(
        subject,
        policies or (policy(),),
        training(folder, subject, plan, own=data, distill=distill),
        watcher or Quiet(),
    )


def test_weights_come_nearer_to_what_the_model_says_without_a_policy(tmp_path: Path) -> None:
    result = tune(tmp_path)

    (search,) = result.search
    assert result.better
    assert search.after.kl < search.before.kl
    assert result.select[0].after.kl < result.select[0].before.kl
    assert result.policies == (tmp_path / "policy.json",)


def test_the_files_are_those_that_a_later_command_takes(tmp_path: Path) -> None:
    result = tune(tmp_path)

    assert result.weights is not None
    loaded = load_model(resolve_model("tests.tune.small:model"), checkpoint=result.weights).module
    written = load(tmp_path / "policy.json")
    assert written.model.weights == describe(loaded).weights
    subject = evaluator()
    pixels = subject.splits.search.part(0, 24)[0]
    with torch.inference_mode(), applied(loaded, written):
        divergence = torch.nn.functional.kl_div(
            loaded(pixels).log_softmax(1),
            subject.model(pixels).log_softmax(1),
            log_target=True,
            reduction="batchmean",
        )
    assert divergence < result.search[0].before.kl


def test_the_model_itself_stays_as_it_was(tmp_path: Path) -> None:
    subject = evaluator()
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}

    asked = training(tmp_path, subject, replace(PLAN, steps=2))
    tune_weights(subject, (policy(),), asked, Quiet())

    assert policy_of(subject.model) is None
    for name, value in subject.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_weights_that_are_worse_are_not_kept(tmp_path: Path) -> None:
    result = tune(tmp_path, plan=replace(PLAN, steps=3, lr=1.0))

    assert not result.better
    assert (result.weights, result.policies) == (None, ())
    assert not (tmp_path / "model.safetensors").exists()


def test_one_set_of_weights_serves_all_policies_of_a_front(tmp_path: Path) -> None:
    result = tune(tmp_path, policy(8, 4), policy(3, 2), plan=replace(PLAN, steps=24))

    assert result.better
    assert len(result.search) == 2
    written = [load(path) for path in result.policies]
    assert [path.name for path in result.policies] == ["policy-1.json", "policy-2.json"]
    assert len({each.model.weights for each in written}) == 1


@pytest.mark.parametrize(
    "changes",
    [{}, {"ema": 0.9}, {"precision": "bf16"}, {"warmup_steps": 3}],
    ids=str,
)
def test_a_training_that_is_cut_off_ends_with_the_bits_of_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    train_with_a_cut(partial(tune, plan=replace(PLAN, **changes)), tmp_path, monkeypatch)

    steps = [
        json.loads(line)["step"] for line in (tmp_path / "cut/steps.jsonl").read_text().splitlines()
    ]
    assert steps == [10, 12]


def test_labels_are_learned_where_they_are_asked_for(tmp_path: Path) -> None:
    tune(tmp_path, own=images(labelled=True), distill=0.25, plan=replace(PLAN, mixup=0.8, cutmix=1))

    line = json.loads((tmp_path / "steps.jsonl").read_text().splitlines()[-1])
    parts = 0.25 * line["divergence"] + 0.75 * line["cross_entropy"]
    assert line["loss"] == pytest.approx(parts, rel=1e-6)


def test_progress_tells_the_time_left_and_tensorboard_the_loss(tmp_path: Path) -> None:
    watcher = Quiet()

    tune(tmp_path, watcher=watcher)

    assert "training" in watcher.heard
    assert watcher.left[-1] == 0
    assert all(left is not None for left in watcher.left)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_a_loss_that_is_no_number_stops_with_the_last_good_checkpoint(tmp_path: Path) -> None:
    own = images()

    def spoilt(step: int, count: int) -> tuple[Tensor, Tensor]:
        drawn, labels = own.draw(step, count)
        return (drawn.fill_(torch.nan) if step == 4 else drawn), labels

    with pytest.raises(TrainingError, match="the loss of step 4 is nan; the last good checkpoint"):
        tune(tmp_path, own=replace(own, draw=spoilt))

    assert (tmp_path / "checkpoint.safetensors").exists()


def test_another_training_is_refused_a_folder_that_is_taken(tmp_path: Path) -> None:
    tune(tmp_path, plan=replace(PLAN, steps=2))

    with pytest.raises(RunError, match=r"holds a training with lr 0\.001 and not 0\.01"):
        tune(tmp_path, plan=replace(PLAN, steps=2, lr=0.01))


def test_a_checkpoint_that_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    tune(tmp_path, plan=replace(PLAN, steps=2))
    (tmp_path / "checkpoint.safetensors").write_bytes(b"no tensors")

    with pytest.raises(RunError, match="cannot be read; delete it to begin again"):
        tune(tmp_path, plan=replace(PLAN, steps=2))


def test_a_policy_per_image_is_frozen_first(tmp_path: Path) -> None:
    varies = Policy(describe(model()), (Threshold(1, 9, 0.02),), counts="per_image")

    with pytest.raises(PolicyError, match="`tokensearch tune freeze POLICY` makes it static"):
        tune(tmp_path, varies)


@pytest.mark.parametrize(
    ("share", "error", "message"),
    [
        (0.5, DataError, "the images of crops have no labels; give --distill 1"),
        (2.0, TrainingError, "must be a share from 0 to 1"),
    ],
)
def test_a_loss_that_cannot_be_had_is_refused(
    share: float, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_distillation(evaluator(), images(), share)


def test_embeddings_are_held_against_the_teachers(tmp_path: Path) -> None:
    subject = replace(evaluator(model(num_classes=0)), objective="cosine")
    with pytest.raises(TrainingError, match="returns embeddings, which no label is held against"):
        make_distillation(subject, images(labelled=True), 0.5)

    result = tune_weights(subject, (policy(),), training(tmp_path, subject, PLAN), Quiet())

    assert result.better
    assert result.search[0].after.cosine > result.search[0].before.cosine


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "find_spec", lambda _: None)

    with pytest.raises(TrainingError, match=r"pip install 'tokensearch\[tune\]'"):
        loop.check_training(PLAN, torch.device("cpu"))


def test_half_precision_that_a_cpu_lacks_is_refused() -> None:
    with pytest.raises(TrainingError, match="in which a CPU cannot train"):
        loop.check_training(replace(PLAN, precision="fp16"), torch.device("cpu"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "--steps is 0; it must be at least 1"),
        ({"warmup_steps": 12}, "--warmup is 12; it must be less than the 12 --steps"),
        ({"mixup": 0.8, "batch": 3}, "--train-batch is 3; it must be even"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        tune(tmp_path, plan=replace(PLAN, **changes), own=images(labelled=True))


def test_mixing_labels_that_are_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="mix labels, of which the images of crops have none"):
        tune(tmp_path, plan=replace(PLAN, mixup=0.8))


def test_labels_beyond_what_the_model_tells_apart_are_refused() -> None:
    many = replace(images(labelled=True), classes=1000)

    with pytest.raises(DataError, match="have 1000 classes and the model has"):
        make_distillation(evaluator(), many, None)
    assert make_distillation(evaluator(), many, 1.0).share == 1


def test_images_of_classes_that_no_loss_asks_for_are_mixed(tmp_path: Path) -> None:
    plan = replace(PLAN, steps=2, mixup=0.8)
    own = images(labelled=True)
    many = replace(own, classes=1000, draw=lambda step, count: (own.draw(step, count)[0], LABELS))

    assert tune(tmp_path, plan=plan, own=many, distill=1.0).search


LABELS = torch.arange(PLAN.batch) + 900


def test_a_single_score_learns_from_labels_of_two_classes(tmp_path: Path) -> None:
    subject, own = evaluator(model(num_classes=1)), images(labelled=True)
    two = replace(own, classes=2, draw=lambda step, count: (own.draw(step, count)[0], LABELS % 2))
    plan = replace(PLAN, steps=2, mixup=0.8)

    tune_weights(subject, (policy(),), training(tmp_path, subject, plan, own=two), Quiet())

    assert "cross_entropy" in (tmp_path / "steps.jsonl").read_text()


class BatchNormMethod:
    """Trains what remembers batches: a norm over them."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 1, 1))

    def begin_step(self, step: int) -> None:
        pass

    def loss(self, forward: Callable[[Tensor], Tensor], batch: TrainingBatch) -> dict[str, Tensor]:
        return {"loss": forward(batch.images).square().mean()}


def test_norms_over_batches_are_those_of_a_training_that_is_not_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(PLAN, ema=0.9, steps=6)

    def train(name: str, own: TrainingImages) -> dict[str, Tensor]:
        folder = TrainingFolder(tmp_path / name)
        folder.begin({})
        trainer = Trainer(BatchNormMethod(), own, plan, folder=folder, classes=5)
        trainer.run(Quiet())
        return trainer.result.state_dict()

    whole = train("whole", images())
    monkeypatch.setattr(loop, "SAVE_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train("cut", images_until(3))

    for name, value in train("cut", images()).items():
        assert torch.equal(value, whole[name]), name


def test_a_checkpoint_that_lacks_something_is_refused(tmp_path: Path) -> None:
    tune(tmp_path, plan=replace(PLAN, steps=2))
    folder = TrainingFolder(tmp_path)
    held = folder.load(torch.device("cpu"))
    assert held is not None
    folder.save(replace(held, tensors={}))

    with pytest.raises(RunError, match=r"has no 'model.*; delete it to begin again"):
        tune(tmp_path, plan=replace(PLAN, steps=2))


def test_the_rate_ends_where_the_cosine_does_with_a_warm_up_too(tmp_path: Path) -> None:
    tune(tmp_path, plan=replace(PLAN, steps=10, warmup_steps=5))

    lines = (tmp_path / "steps.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])["lr"]
    assert last < 0.15 * PLAN.lr  # four fifths of a cosine to a twentieth: 0.14 of the first
