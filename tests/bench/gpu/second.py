"""The second plan: a model trained on the spot, its fronts, and a larger model.

The first plan's searches are of a demo model that is launch-bound on a GPU and was trained with
tokens dropped. Here a DeiT-S learns the same images with every token, and its fronts are held
against all that was published.
"""

import json
from functools import partial
from pathlib import Path

from tests.bench.gpu.first import SMALL, bench
from tests.bench.gpu.parts import Part, Setting
from tests.bench.gpu.shown import interval, read_json, show_comparisons, show_run, table

DEIT_S, VIT_B = "deit_small_patch16_224", "vit_base_patch16_224"
BATCHES = (64, 1, 256)  # the most telling first
TRIED = 1  # the batch on CPUs


def trained_name(setting: Setting) -> str:
    return SMALL if setting.tried else DEIT_S


def subject(setting: Setting) -> list[str]:
    """Options for the model that the first part trained."""
    name = trained_name(setting)
    weights = setting.out / "train" / f"{name}.safetensors"
    return ["--model", name, "--checkpoint", str(weights), "--data", "digits", *setting.cell]


def train(setting: Setting) -> list[str]:
    asked = ["--seconds", "138", "--held-out", "500"]
    if setting.tried:
        asked = ["--seconds", "8", "--batch", "2", "--held-out", "4"]
    return [
        *("-m", "tokensearch.demo.train", "--model", trained_name(setting)),
        *("--device", setting.device, *asked, "--out", str(setting.out / "train")),
    ]


def search(setting: Setting, *, batch: int) -> list[str]:
    asked = ["--batch-size", str(batch), "--images", "256,256,1000", "--minutes", "0.3"]
    if setting.tried:
        asked = ["--batch-size", str(TRIED), "--images", "20,20,20", "--minutes", "0.02"]
    return [
        *("-m", "tokensearch.cli", "run", *subject(setting), *asked, "--no-remember"),
        *("--out", str(setting.out / f"search-{batch}")),
    ]


def fronts(setting: Setting) -> list[str]:
    asked = ["--batch", *map(str, BATCHES), "--seconds", "8", "--within", "75"]
    if setting.tried:
        asked = ["--batch", str(TRIED), "--seconds", "1", "--images", "20"]
        asked += ["--presets", "last-cls", "tome-r13", "evit-0.7"]
    files = str(setting.out / "search-{batch}" / "front.json")
    return bench("fronts", setting, *subject(setting), *asked, "--front", files, out="fronts.json")


def larger(setting: Setting) -> list[str]:
    asked = ["--model", VIT_B, "--batch", "64", "--seconds", "1.5", "--within", "20"]
    if setting.tried:
        asked = ["--model", SMALL, "--batch", "1", "--seconds", "0.1", "--presets", "none"]
    return bench("presets", setting, *setting.cell, *asked, out="vit-b.json")


def costs(setting: Setting) -> list[str]:
    asked = ["--model", VIT_B, "--batch-size", "64", "--seconds", "20"]
    if setting.tried:
        asked = ["--model", SMALL, "--batch-size", "1", "--seconds", "2"]
    return [
        *("-m", "tokensearch.cli", "profile", "--sweep", *setting.cell, *asked),
        *("--out", str(setting.out / "vit-b-costs")),
    ]


def show_training(folder: Path) -> list[str]:
    """Loss and accuracies by stage."""
    path = folder / "training.jsonl"
    if not path.is_file():
        raise ValueError(f"{path.name} was not written")
    notes = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    last = {note["stage"]: {} for note in notes}
    for note in notes:
        last[note["stage"]] |= note
    rows = [
        (name, f"{one['seconds']:.0f}", one["step"], one.get("loss", ""), *accuracies(one))
        for name, one in last.items()
    ]
    return table(("stage", "seconds", "steps", "loss", "training top-1", "select top-1"), rows)


def accuracies(note: dict[str, float]) -> tuple[str, str]:
    seen = f"{note['training_top1']:.1%}" if "training_top1" in note else ""
    if "select_right" not in note:
        return seen, ""
    return seen, f"{note['select_right'] / note['select_images']:.1%} of {note['select_images']}"


def show_fronts(path: Path) -> list[str]:
    """Per batch the outcome, then all policies, fastest first."""
    lines: list[str] = []
    for found in read_json(path):
        rows = [
            (one["name"], interval(one), f"{one['median_ms']:.3f}", f"{one['accuracy']:.2%}")
            for one in found["policies"]
        ]
        lines += ["", f"Batch {found['cell']['batch']}, {found['model']}: {found['said']}."]
        lines += [f"Not timed: {name}, {why}" for name, why in found["untimed"].items()]
        whole = f"accuracy (baseline {found['baseline_accuracy']:.2%})"
        lines += ["", *table(("policy", "ratio", "ms", whole), rows)]
    return lines


def show_costs(folder: Path) -> list[str]:
    """How good the table says it is."""
    found = read_json(folder / "costs.json")
    fit = found["calibration"]
    return [
        f"{found['passes']} passes in {found['seconds']:.0f} s; "
        f"baseline {found['baseline_ms']:.3f} ms; "
        f"calibration {fit['fixed_ms']:+.3f} ms + {fit['scale']:.3f} x parts; "
        f"stated error {fit['error']:.1%}, worst {fit['worst']:.1%}."
    ]


SECOND = (
    Part(
        "train",
        160,
        "whether a DeiT-S learns to read digit scenes, with every token, in so short a time",
        train,
        lambda out: show_training(out / "train"),
    ),
    *(
        Part(
            f"search-{batch}",
            70,
            f"what a search finds for it at batch {batch}",
            partial(search, batch=batch),
            partial(lambda batch, out: show_run(out / f"search-{batch}"), batch),
        )
        for batch in BATCHES
    ),
    Part(
        "fronts",
        105,
        "whether what was found beats all that was published",
        fronts,
        lambda out: show_fronts(out / "fronts.json"),
    ),
    Part(
        "vit-b",
        27,
        "what published schedules are worth on ViT-B at batch 64",
        larger,
        lambda out: show_comparisons(out / "vit-b.json", ("preset", "batch")),
    ),
    Part(
        "vit-b-costs",
        38,
        "what token counts and operators cost on ViT-B at batch 64",
        costs,
        lambda out: show_costs(out / "vit-b-costs"),
    ),
)
