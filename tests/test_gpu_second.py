"""The second GPU plan: fronts are weighed rightly, and whatever is missing is said."""

import json
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from tests.bench import fronts
from tests.bench.fronts import Entry, front, parsed, presets, results, timed, weighed
from tests.bench.gpu.parts import Setting
from tests.bench.gpu.second import SECOND, show_costs, show_fronts, show_training
from tokensearch.policy import Evidence, ModelSpec, Policy, PolicySet, preset, save_set
from tokensearch.records.measurements import Accuracy, Comparison, Latency

SPEC = ModelSpec("deit_s", blocks=12, patch_tokens=196, prefix_tokens=1, width=384)


def accuracy(right: int) -> Accuracy:
    return Accuracy("top1", "report", "sha256:00", 100, right, 0.0, 1.0, 0.95, 0.0, 0.0, right)


def entry(name: str, ratio: float, right: int, *, found: bool = False, wide: float = 0.01) -> Entry:
    one = Latency((10.0,) * 12, warmup=0)
    bounds = ratio - wide, ratio + wide
    return Entry(name, found, Comparison(one, one, ratio, *bounds, 0.95, "faster"), accuracy(right))


def test_a_preset_is_beaten_by_what_is_as_right_and_faster() -> None:
    found = [entry("a", 0.5, 94, found=True), entry("b", 0.8, 96, found=True)]
    published = [
        entry("slower", 0.6, 94),
        entry("hardly slower", 0.505, 94),
        entry("as good", 0.5, 94),
        entry("more right", 0.7, 95),
        entry("much slower", 0.9, 95),
    ]

    outcome = weighed([*published, *found], accuracy(96))

    assert (outcome["presets"], outcome["found"]) == (5, 2)
    assert outcome["presets_beaten"] == 3
    assert outcome["presets_surely_beaten"] == 2  # 0.505 is not told apart from 0.5
    assert outcome["found_beaten"] == 0
    assert [one["name"] for one in outcome["policies"]][-1] == "much slower"


def test_the_volume_is_a_share_of_all_that_could_be_had_within_ten_points() -> None:
    found = [entry("a", 0.5, 91, found=True), entry("b", 0.75, 96, found=True)]

    outcome = weighed([*found, entry("p", 0.5, 86), entry("q", 0.4, 80)], accuracy(96))

    assert outcome["hypervolume_found"] == pytest.approx(0.5 * 0.25 + 1.0 * 0.25)
    assert outcome["hypervolume_presets"] == pytest.approx(0.0)
    assert weighed([entry("none", 0.0, 96)], accuracy(96))["hypervolume_presets"] == pytest.approx(
        1
    )


class Broken:
    """A timing under which one policy cannot be run."""

    def __init__(self, bad: Policy) -> None:
        self.bad = bad

    def time_together(self, policies: list[Policy], *_: object, **__: object) -> list[Comparison]:
        if self.bad in policies:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return [entry("", 0.5, 90).comparison] * len(policies)


def test_what_cannot_be_captured_is_named_and_the_others_are_timed() -> None:
    policies = [preset(f"tome-r{r}", SPEC) for r in range(1, 13)]

    times, untimed = timed(Broken(policies[4]), policies, 1.0)  # type: ignore[arg-type]

    assert set(times) == set(policies) - {policies[4]}
    assert untimed == {policies[4]: "operation not permitted when stream is capturing"}


def test_the_policies_of_a_front_have_names_of_their_own(tmp_path: Path) -> None:
    cell = {"device": "cpu", "dtype": "float32", "batch": 8, "resolution": 224, "backend": "eager"}
    ms, right = {"median_ms": 1.0}, {"top1": 0.5, "kind": "top1"}
    seen = Evidence(cell, ms, right, ms, confirmed=True)
    schedules = [Policy(SPEC), *(preset(f"tome-r{r}", SPEC) for r in range(1, 13))]
    policies = [one.with_evidence(seen) for one in schedules]
    save_set(PolicySet(tuple(policies)), tmp_path / "front.json")

    found, where = front(tmp_path / "front.json")

    assert list(found.values()) == policies[1:]
    assert where == str(tmp_path / "front.json")


def test_presets_are_those_that_fit_and_reduce() -> None:
    assert list(presets(["none", "tome-l-r8", "tome-r13"], SPEC)) == ["tome-r13"]


def test_without_a_front_the_presets_stand_alone_and_the_summary_says_so(tmp_path: Path) -> None:
    weights = tmp_path / "vit.safetensors"
    save_file(timm.create_model("test_vit", num_classes=10).state_dict(), weights)
    options = parsed(
        [
            *("--model", "test_vit", "--checkpoint", str(weights), "--images", "10"),
            *("--presets", "last-cls", "--seconds", "0.2"),
            *("--front", str(tmp_path / "{batch}.json")),
        ]
    )

    found = list(results(options))

    (tmp_path / "fronts.json").write_text(json.dumps(found))
    text = "\n".join(show_fronts(tmp_path / "fronts.json"))
    assert "Batch 1, test_vit: presets alone, no front in " in text
    assert "1.json" in text
    assert "| last-cls | " in text
    assert [one["accuracy"] for one in found[0]["policies"]] == [found[0]["baseline_accuracy"]]


def test_a_training_that_was_cut_off_shows_its_stages_so_far(tmp_path: Path) -> None:
    notes = [
        {"seconds": 9.0, "stage": "flat", "step": 50, "loss": 2.5, "training_top1": 0.3},
        {"seconds": 12.0, "stage": "flat", "step": 80, "loss": 2.1, "training_top1": 0.5},
        {"seconds": 12.0, "stage": "flat", "step": 80, "select_right": 40, "select_images": 500},
        {"seconds": 20.0, "stage": "mixed", "step": 50, "loss": 1.9, "training_top1": 0.6},
    ]
    (tmp_path / "training.jsonl").write_text("".join(json.dumps(one) + "\n" for one in notes))

    assert show_training(tmp_path)[2:] == [
        "| flat | 12 | 80 | 2.1 | 50.0% | 8.0% of 500 |",
        "| mixed | 20 | 50 | 1.9 | 60.0% |  |",
    ]


def test_a_sweep_says_how_far_it_is_off(tmp_path: Path) -> None:
    fit = {"fixed_ms": 0.2, "scale": 0.98, "error": 0.031, "worst": 0.072, "trials": []}
    costs = {"passes": 900, "seconds": 20.4, "baseline_ms": 9.5, "calibration": fit}
    (tmp_path / "costs.json").write_text(json.dumps(costs))

    assert show_costs(tmp_path) == [
        "900 passes in 20 s; baseline 9.500 ms; calibration +0.200 ms + 0.980 x parts; "
        "stated error 3.1%, worst 7.2%."
    ]


def test_every_search_is_of_the_weights_that_the_first_part_leaves(tmp_path: Path) -> None:
    asked = {one.name: one.command(Setting(tmp_path, "cuda")) for one in SECOND}

    train = asked["train"]
    out, name = (train[train.index(option) + 1] for option in ("--out", "--model"))
    for part in ("search-1", "search-64", "search-256", "fronts"):
        given = asked[part][asked[part].index("--checkpoint") + 1]
        assert given == f"{out}/{name}.safetensors"
    pattern = asked["fronts"][asked["fronts"].index("--front") + 1]
    runs = [asked[f"search-{batch}"][-1] for batch in (1, 64, 256)]
    assert [pattern.format(batch=batch) for batch in (1, 64, 256)] == [
        f"{run}/front.json" for run in runs
    ]
    assert name == fronts.MODEL
