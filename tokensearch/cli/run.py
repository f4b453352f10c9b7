"""Search for the schedules worth having: front, policy and report, in one run folder."""

import shlex
import sys
from math import isfinite
from pathlib import Path
from typing import Annotated, Literal

import typer

from tokensearch.cli.console import err, out, print_json
from tokensearch.cli.options import (
    SIZES_TEXT,
    BackendOption,
    BatchOption,
    CheckpointOption,
    ClassMapOption,
    DataConfigOption,
    DataOption,
    DeviceOption,
    DtypeOption,
    ImagesOption,
    JsonOption,
    ModelOption,
    SeedOption,
)

# On the bundled model and two CPU cores: about 25 trials, and under five minutes in all.
DEFAULT_MINUTES = 1.75

TargetOption = Annotated[
    str,
    typer.Option(
        "--latency-target",
        help="5ms, 800us, 0.6x (of the un-reduced model) or 2000/s (images)",
    ),
]
SpaceOption = Annotated[str, typer.Option("--space", help="search space: a TOML file or a name")]
SamplerOption = Annotated[
    Literal["local", "tpe", "tpe-multivariate", "gp", "nsga2", "random"],
    typer.Option("--sampler", help="who proposes: our local search, or one of Optuna's"),
]
ObjectiveOption = Annotated[
    Literal["kl", "ce", "top1", "agreement"],
    typer.Option(
        "--objective",
        help="what to make best: divergence from the un-reduced model, cross-entropy with the "
        "labels, right answers, or answers that stay the same",
    ),
]
FromOption = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="FILE", help="front.json of another run, whose schedules are tried first"
    ),
]
CacheOption = Annotated[
    float,
    typer.Option("--cache-gb", min=0.0, max=1e4, help="memory for activations that policies share"),
]
SmallerOption = Annotated[
    str | None,
    typer.Option(
        "--smaller", metavar="NAME", help="a smaller model of the same classes to compare with"
    ),
]
SmallerCheckpointOption = Annotated[
    Path | None,
    typer.Option("--smaller-checkpoint", metavar="FILE", help="its weights, as for --checkpoint"),
]
RememberOption = Annotated[
    bool,
    typer.Option(
        "--remember/--no-remember",
        help="keep answers for later runs, and use those of earlier ones",
    ),
]
TrialsOption = Annotated[
    int | None,
    typer.Option("--trials", min=1, help="policies to try, if that is to end the search"),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        "--minutes",
        min=0.01,
        max=1e5,
        help=f"of searching at most; {DEFAULT_MINUTES} if neither this nor --trials is given",
    ),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="run folder; runs/MODEL-DEVICE-TARGET if not given")
]


def run(
    model: ModelOption = "demo",
    latency_target: TargetOption = "0.5x",
    checkpoint: CheckpointOption = None,
    data: DataOption = None,
    class_map: ClassMapOption = None,
    data_config: DataConfigOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    batch_size: BatchOption = 8,
    backend: BackendOption = "eager",
    space: SpaceOption = "default",
    sampler: SamplerOption = "local",
    objective: ObjectiveOption = "kl",
    front: FromOption = None,
    smaller: SmallerOption = None,
    smaller_checkpoint: SmallerCheckpointOption = None,
    images: ImagesOption = SIZES_TEXT,
    trials: TrialsOption = None,
    minutes: MinutesOption = None,
    seed: SeedOption = 0,
    cache_gb: CacheOption = 1.0,
    remember: RememberOption = True,
    out_folder: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search for the schedules worth having: front, policy and report, in one run folder.

    Stopped at any moment, it goes on with the same command. Exit codes: 0 the target is met, 3 no
    policy meets it, 4 too close to call.
    """
    from tokensearch.cli.progress import listener
    from tokensearch.cli.smaller import smaller_for
    from tokensearch.cli.subject import parse_sizes, prepare, resolve_device, resolve_name
    from tokensearch.evaluate.store import AnswerStore, usual_store
    from tokensearch.policy import load_set, parse_target
    from tokensearch.report.markdown import write_report
    from tokensearch.report.summary import summary
    from tokensearch.run_folder import RunFolder
    from tokensearch.search import Limits, Session, Settings, load_space

    if minutes is not None and not isfinite(minutes):
        raise typer.BadParameter(f"--minutes is {minutes}; it must be a number")
    if minutes is None and trials is None:
        minutes = DEFAULT_MINUTES
    target = parse_target(latency_target)
    neighbours = load_set(front).policies if front is not None else ()
    chosen = load_space(space)
    place = resolve_device(device)
    name = resolve_name(model)
    way = place.type if backend == "eager" else f"{place.type}-{backend}"
    where = out_folder or Path("runs") / f"{model}-{way}-{target}".replace("/", "-")
    folder = RunFolder(where)
    folder.check()
    err.print(f"model {model} is {name}, on {place}; run folder {where}")
    subject = prepare(
        model,
        checkpoint=checkpoint,
        data=data,
        class_map=class_map,
        data_config=data_config,
        sizes=parse_sizes(images),
        device=place,
        dtype=dtype,
        batch=batch_size,
        backend=backend,
        seed=seed,
    )
    rival = smaller_for(subject, smaller, smaller_checkpoint)
    settings = Settings(
        model=name,
        checkpoint=None if checkpoint is None else str(checkpoint),
        data=data,
        target=target,
        device=place.type,
        dtype=dtype,
        batch=batch_size,
        resolution=subject.cell.resolution,
        space=chosen.name,
        space_digest=chosen.digest,
        sampler=sampler,
        seed=seed,
        objective=objective,
        backend=backend,
    )
    with listener(err) as watcher:
        session = Session(
            subject.model,
            subject.splits,
            chosen,
            settings,
            Limits(trials, None if minutes is None else minutes * 60),
            folder,
            watcher,
            shlex.join(["tokensearch", *sys.argv[1:]]),
            AnswerStore(usual_store() if remember else None),
            cache_gb,
            neighbours,
            rival,
        )
        document = session.run()
    write_report(folder)
    if as_json:
        print_json(document)
    else:
        out.print(summary(document, load_set(folder.front), folder=folder))
    raise typer.Exit(document["result"]["exit_code"])
