"""Write a model under a policy as a file of ONNX or torch.export, compared before it is kept."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tokensearch.cli.console import caution, check_file, err, out, print_json
from tokensearch.cli.options import (
    DEMO,
    BatchOption,
    CheckpointOption,
    DataConfigOption,
    ImgSizeOption,
    JsonOption,
    ModelKwargsOption,
    ModelOption,
    RescaleOption,
    read_options,
)
from tokensearch.policy import is_file
from tokensearch.policy.file import policy_to_json

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from tokensearch.models import Options

FormatOption = Annotated[Literal["onnx", "pt2"], typer.Option("--format", help="of the file")]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="file; MODEL-POLICY.FORMAT if not given"),
]
NumbersOption = Annotated[
    Literal["float32", "float16", "bfloat16"],
    typer.Option("--dtype", help="number type of the model"),
]
DenseOption = Annotated[
    bool, typer.Option("--dense", help="features of every patch instead of logits")
]
DynamicOption = Annotated[
    bool, typer.Option("--dynamic-batch", help="any number of images, not --batch-size alone")
]


def export(
    policy: Annotated[
        str, typer.Argument(metavar="POLICY", help="policy file, or name of a preset")
    ],
    model: ModelOption = DEMO,
    img_size: ImgSizeOption = None,
    model_kwargs: ModelKwargsOption = None,
    rescale: RescaleOption = False,
    checkpoint: CheckpointOption = None,
    data_config: DataConfigOption = None,
    format: FormatOption = "onnx",
    out_file: OutOption = None,
    batch_size: BatchOption = 1,
    dynamic_batch: DynamicOption = False,
    dtype: NumbersOption = "float32",
    dense: DenseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a model under a policy as a file that other programs run.

    The file is run on the CPU, in ONNX Runtime or by torch, and kept if it computes what the model
    computes.
    """
    from tokensearch.cli.commands.show import check_policy_name, read_policy

    check_policy_name(policy)
    short = Path(policy).stem if is_file(policy) else policy
    where = out_file or Path(f"{model}-{short}.{format}".replace("/", "-").replace(":", "-"))
    _check_out(where, format)
    import torch

    from tokensearch.cli.inputs import resolve_name
    from tokensearch.export import check_target
    from tokensearch.export import export as exported
    from tokensearch.report.presets import is_rescaled, rescaled_line
    from tokensearch.runtime import apply

    check_target(format, getattr(torch, dtype))
    options = read_options(img_size, model_kwargs)
    resolve_name(model, options)
    chosen = read_policy(policy, model, options, rescale=rescale)
    if is_rescaled(chosen):
        caution(rescaled_line(chosen))
    module, name, shape = _loaded(model, checkpoint, data_config, dtype, options)
    apply(module, chosen, dense=dense)
    err.print(f"writing {where}, running it, and comparing it with the model")
    check = exported(
        module,
        (batch_size, *shape),
        where,
        format=format,
        dense=dense,
        dynamic_batch=dynamic_batch,
        notes={"tokensearch.policy": json.dumps(policy_to_json(chosen))},
    )
    document: dict[str, Any] = {
        "file": str(where),
        "model": name,
        "policy": policy,
        "schedule_hash": chosen.schedule_hash,
        "dense": dense,
        "dynamic_batch": dynamic_batch,
        "input": [None if dynamic_batch else batch_size, *shape],
        **asdict(check),
    }
    if as_json:
        print_json(document)
    else:
        out.print(_table(document))


def _check_out(path: Path, format: str) -> None:
    """Refuse a file that is not named as its format, or cannot be written; before torch."""
    from tokensearch.errors import ExportError

    if path.suffix != f".{format}":
        raise ExportError(f"--out is {path}; a file of format {format} must end in .{format}")
    if not path.parent.is_dir():
        raise ExportError(f"--out is {path}; its folder {path.parent} does not exist")
    check_file(path)


def _loaded(
    model: str,
    checkpoint: Path | None,
    data_config: Path | None,
    dtype: str,
    options: "Options",
) -> tuple["nn.Module", str, tuple[int, ...]]:
    """Return the model in its number type, its full name, and the shape of an image."""
    import torch

    from tokensearch.cli.inputs import check_forward
    from tokensearch.models import load_model, resolve_model

    loaded = load_model(
        resolve_model(model), checkpoint=checkpoint, data_config=data_config, options=options
    )
    size = loaded.data_config["input_size"]
    assert isinstance(size, tuple | list)
    shape = tuple(int(side) for side in size)
    module = loaded.module.to(getattr(torch, dtype))
    check_forward(loaded.name, module, torch.zeros(1, *shape, dtype=getattr(torch, dtype)))
    return module, loaded.name, shape


def _table(document: Mapping[str, Any]) -> "Table":
    from tokensearch.report import text
    from tokensearch.report.table import ReportTable, table_to_rich

    count, *shape = document["input"]
    images = "any number of images" if count is None else text.count(count, "image")
    what = "features of every patch" if document["dense"] else "logits"
    difference, allowed = document["max_abs_difference"], document["tolerance"]
    rows = (
        ("file", f"{document['file']}, {document['file_bytes'] / 1e6:.1f} MB"),
        ("model", f"{document['model']} under {document['policy']}, {document['dtype']}"),
        ("in", f"{images} of {'x'.join(map(str, shape))}"),
        ("out", what),
        ("run by", f"{document['runtime']}, on the CPU"),
        ("max abs difference", f"{text.three_digits(difference)} from the model in eager mode"),
        ("allowed", f"{text.three_digits(allowed)}: {document['reason']}"),
    )
    return table_to_rich(ReportTable(("figure", "value"), rows))
