"""Measure one policy or preset: accuracy and latency beside the un-reduced model."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from tokensearch.cli.console import err, out, print_json
from tokensearch.cli.options import (
    BatchOption,
    CheckpointOption,
    ClassMapOption,
    DataConfigOption,
    DataOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    SeedOption,
)

PolicyArgument = Annotated[str, typer.Argument(help="policy file, or name of a preset")]
ImagesOption = Annotated[
    int, typer.Option("--images", min=1, metavar="N", help="of the report split, its first ones")
]


def evaluate(
    policy: PolicyArgument,
    model: ModelOption = "demo",
    checkpoint: CheckpointOption = None,
    data: DataOption = None,
    class_map: ClassMapOption = None,
    data_config: DataConfigOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    batch_size: BatchOption = 8,
    images: ImagesOption = 2000,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure one policy or preset: accuracy and latency beside the un-reduced model."""
    from tokensearch.cli.progress import listener, telling
    from tokensearch.cli.subject import prepare, resolve_device, resolve_name
    from tokensearch.records import to_json
    from tokensearch.report.evaluation import evaluation
    from tokensearch.runtime import check, resolve
    from tokensearch.search import SIZES
    from tokensearch.search.evaluator import Evaluator
    from tokensearch.search.finalists import CONFIRM_BUDGET

    place = resolve_device(device)
    name = resolve_name(model)
    subject = prepare(
        model,
        checkpoint=checkpoint,
        data=data,
        class_map=class_map,
        data_config=data_config,
        sizes=SIZES,
        device=place,
        dtype=dtype,
        batch=batch_size,
        seed=seed,
    )
    chosen = resolve(subject.model, policy)
    check(subject.model, chosen)
    evaluator = Evaluator(subject.model, subject.splits, subject.cell, seed)
    with listener(err) as watcher:
        watcher.stage(f"accuracy of {name} on the report split, then of the un-reduced model")
        scored = evaluator.score(chosen, "report", limit=images, on_batch=telling(watcher))
        watcher.stage("latency, in turn with the un-reduced model")
        comparison = evaluator.time(chosen, CONFIRM_BUDGET)
    document: dict[str, Any] = {
        "policy": policy,
        "schedule_hash": chosen.schedule_hash,
        "patch_tokens_per_block": list(chosen.patch_tokens_per_block),
        "cell": to_json(subject.cell),
        "data": subject.splits.name,
        "accuracy": to_json(scored.accuracy),
        "paired": asdict(scored.paired),
        "comparison": to_json(comparison),
    }
    if as_json:
        print_json(document)
    else:
        out.print(evaluation(document))
