"""Training on digit scenes: it learns, ends in time, can be cut off, leaves usable weights."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tokensearch.data.scene_batches import training_scenes
from tokensearch.data.scenes import TALLY, Recipe, split_scenes
from tokensearch.demo import train
from tokensearch.demo.curriculum import COUNTING, PLAIN, QUICK, STAGES, Stage
from tokensearch.demo.model import WEIGHTS
from tokensearch.demo.student import Answers, auxiliary_loss, student_of
from tokensearch.demo.train import Training, TrainingPlan, held_out_images
from tokensearch.models import load_model

SMALL = "deit_tiny_patch16_224"
FEW = (
    Stage("one", 3, PLAIN, 64, (1.0, 1.0), (1e-3, 1e-3), batch=4),
    Stage("two", 2, PLAIN, 64, (0.5, 1.0), (1e-3, 1e-4), batch=4, favour=1.0),
)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(train, "STAGES", FEW)


def notes(out):
    return [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]


def test_the_weights_are_those_of_a_model_of_ten_classes_of_that_name(tmp_path, few):
    training = Training(TrainingPlan(tmp_path, SMALL, held_out=2))
    training.run()
    exported = training.export()

    loaded = load_model(SMALL, checkpoint=tmp_path / f"{SMALL}.safetensors").module

    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        assert loaded(images).shape == (2, 10)
        assert torch.equal(loaded(images), exported.eval()(images))
    assert not list(tmp_path.glob("*.partial"))
    assert [note["step"] for note in notes(tmp_path) if "loss" in note] == [3, 2]
    assert [note["select_images"] for note in notes(tmp_path) if "select_right" in note] == [2, 2]


def test_a_training_that_was_cut_off_goes_on_to_the_same_weights(tmp_path, few, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    Training(TrainingPlan(whole, SMALL, held_out=1)).run()
    monkeypatch.setattr(train, "SAVE_S", 0.0)  # after every step
    cut_off = Training(TrainingPlan(parts, SMALL, held_out=1))
    step = cut_off._update

    def update(*args):
        if cut_off.steps == 4:
            raise KeyboardInterrupt
        return step(*args)

    cut_off._update = update
    with pytest.raises(KeyboardInterrupt):
        cut_off.run()
    assert (parts / f"{SMALL}.safetensors").is_file()

    resumed = Training(TrainingPlan(parts, SMALL, held_out=1))
    resumed.load()
    assert 0 < resumed.steps < 5
    resumed.run()

    one, other = (load_file(folder / f"{SMALL}.safetensors") for folder in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_by_the_clock_every_stage_has_its_share_and_the_last_ends_in_time(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(train.time, "perf_counter", lambda: now[0])
    training = Training(TrainingPlan(tmp_path, SMALL, seconds=100.0, held_out=1))
    spent = dict.fromkeys((stage.name for stage in QUICK), 0.0)

    def step(stage, progress):
        assert 0 <= progress < 1
        now[0] += 3.0
        spent[stage.name] += 3.0
        return torch.zeros(2)

    monkeypatch.setattr(training, "_update", step)
    monkeypatch.setattr(training, "_glance", lambda stage: None)
    monkeypatch.setattr(training, "save", lambda: None)
    training.run()

    assert sum(stage.share for stage in QUICK) == pytest.approx(1)
    assert sum(stage.share for stage in COUNTING) == pytest.approx(1)
    assert 100 <= now[0] < 103
    assert all(abs(spent[stage.name] - 100 * stage.share) <= 3.0 for stage in QUICK)


def test_a_training_goes_on_from_weights_as_they_ship(tmp_path):
    plan = TrainingPlan(tmp_path, seconds=1.0, start=WEIGHTS, checkpoint=False)
    training = Training(plan)

    training.save()

    assert plan.stages == COUNTING
    written, shipped = load_file(tmp_path / "demo.safetensors"), load_file(WEIGHTS)
    assert all(torch.equal(written[name], weight) for name, weight in shipped.items())
    assert not (tmp_path / "checkpoint.pt").exists()


def test_the_last_stage_of_counting_sees_every_token_and_ends_at_a_rate_of_nothing():
    last = COUNTING[-1]
    assert last.window_px == 224
    assert last.keep == (1.0, 1.0)
    assert last.rate_at(1.0, 1000) == 0
    _, kept = last.view(torch.zeros(last.batch, 14, 14), torch.Generator())
    assert torch.equal(kept, torch.arange(196).expand(last.batch, -1))


def test_a_few_steps_of_every_stage_of_counting_are_taken_without_a_clock(tmp_path, monkeypatch):
    brief = tuple(replace(stage, steps=2, batch=2) for stage in COUNTING)
    monkeypatch.setattr(train, "COUNTING", brief)
    training = Training(TrainingPlan(tmp_path, start=WEIGHTS, held_out=2))

    training.run()

    lines = [(n["stage"], n["step"]) for n in notes(tmp_path) if "loss" in n]
    assert lines == [("four", 2), ("nine", 2)]
    assert all(math.isfinite(n["loss"]) for n in notes(tmp_path) if "loss" in n)
    trained, shipped = load_file(tmp_path / "demo.safetensors"), load_file(WEIGHTS)
    assert not torch.equal(trained["head.weight"], shipped["head.weight"])


def test_what_a_training_is_tried_on_is_what_it_ends_with(tmp_path):
    reads, counts = TrainingPlan(tmp_path), TrainingPlan(tmp_path, start=WEIGHTS)
    quick = TrainingPlan(tmp_path, SMALL, seconds=1.0)

    assert reads.held_out_recipe == Recipe()
    assert counts.held_out_recipe == quick.held_out_recipe == TALLY
    images, labels = held_out_images("select", 3, counts)
    assert torch.equal(labels, split_scenes("select", 3)[1])
    assert images.shape == (3, 3, 224, 224)


def test_a_few_steps_on_one_batch_lower_the_loss(tmp_path):
    training = Training(TrainingPlan(tmp_path, SMALL))
    stage = replace(FEW[0], batch=8)
    losses = []
    for _ in range(12):
        training.step = 0  # the same scenes again
        losses.append(float(training._update(stage, 0.0)[0]))
    assert losses[-1] < 0.8 * losses[0]


def test_patches_that_a_digit_barely_touches_may_answer_either_way():
    scenes = training_scenes((0,), 4, PLAIN, size=64)
    kept = torch.arange(16).expand(4, -1)
    generator = torch.Generator().manual_seed(0)
    shapes = (4, 10), (4, 16), (4, 16, 11), (4, 10), ()
    answers = Answers(*(torch.randn(shape, generator=generator) for shape in shapes))
    unsure = (scenes.ink.flatten(1) > 0) & (scenes.ink.flatten(1) <= 0.1)
    assert unsure.any()

    before = auxiliary_loss(scenes, kept, answers)
    other = replace(
        answers,
        marks=answers.marks.masked_fill(unsure, 9.0),
        readings=answers.readings.masked_fill(unsure[..., None], -3.0),
    )

    assert torch.equal(auxiliary_loss(scenes, kept, other), before)
    more = replace(answers, marks=answers.marks + 1)
    assert not torch.equal(auxiliary_loss(scenes, kept, more), before)


def test_a_class_token_knows_nothing_where_images_are_equal_and_something_where_they_differ():
    student = student_of("demo", WEIGHTS)
    images = training_scenes((0,), 4, PLAIN, size=64).images / 127.5 - 1
    kept = torch.arange(16).expand(4, -1)
    with torch.no_grad():
        equal, different = (
            student(x, (0, 0), kept).known for x in (images[:1].repeat(4, 1, 1, 1), images)
        )
    assert equal < 0.001
    assert 0.01 < different <= 1


def test_a_model_that_is_no_vision_transformer_of_that_geometry_is_refused():
    with pytest.raises(ValueError, match="deit_tiny_distilled_patch16_224 cannot be trained"):
        student_of("deit_tiny_distilled_patch16_224")
    with pytest.raises(ValueError, match="14 x 14 patches of 16 px"):
        student_of("vit_tiny_patch16_384")


def test_the_bundled_model_has_a_curriculum_of_steps():
    assert all(stage.steps > 0 for stage in (*STAGES, *COUNTING))
    assert not any(stage.share for stage in STAGES)
