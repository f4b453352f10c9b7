"""Options that several verbs share, declared once."""

import ast
from collections.abc import Sequence
from pathlib import Path
from re import fullmatch
from typing import Annotated, Literal

from typer import BadParameter, Option

DEMO = "demo"

ModelOption = Annotated[
    str,
    Option(
        "--model",
        metavar="NAME",
        help="demo, deit_t, deit_s, deit_b, vit_t, vit_s, vit_b, vit_l, any timm name, "
        "hf:NAME_OR_FOLDER of transformers, or package.module:function",
    ),
]
CheckpointOption = Annotated[
    Path | None,
    Option("--checkpoint", metavar="FILE", help="weights to use instead of the published ones"),
]
ImgSizeOption = Annotated[
    str | None,
    Option(
        "--img-size",
        metavar="N or HxW",
        help="build the model for images of so many pixels a side, or of so many rows and columns "
        "(224x160 or 224,160); positions are resampled",
    ),
]
ModelKwargsOption = Annotated[
    list[str] | None,
    Option(
        "--model-kwargs",
        metavar="KEY=VALUE ...",
        help="arguments of timm's model, or of your function, as in timm's scripts; attributes of "
        "the configuration of a model of transformers",
    ),
]
DataOption = Annotated[
    str | None,
    Option(
        "--data",
        metavar="DIR",
        help="ImageNet-style folder, digits (the bundled scenes), or a dataset timm can open",
    ),
]
ImagesFromOption = Annotated[
    Path | None,
    Option(
        "--images-from",
        metavar="DIR",
        help="a flat folder of your own pictures, without labels, in the place of photographs that "
        "packages bring; of few pictures many crops are taken",
    ),
]
ClassMapOption = Annotated[
    Path | None,
    Option(
        "--class-map",
        metavar="FILE",
        help="names of all the model's classes, a line each, for a folder that holds some of them",
    ),
]
DataConfigOption = Annotated[
    Path | None,
    Option("--data-config", metavar="FILE", help="JSON with input_size, mean, std, crop_pct, ..."),
]
DeviceOption = Annotated[
    str,
    Option(
        "--device",
        metavar="NAME",
        help="cpu, cuda or cuda:1; auto: a GPU if there is one, else cpu",
    ),
]
DtypeOption = Annotated[
    Literal["auto", "float32", "float16", "bfloat16"],
    Option(
        "--dtype",
        help="number type of the model; auto: bfloat16 on a GPU that has it, float16 on one that "
        "has not, float32 on a CPU",
    ),
]
BackendOption = Annotated[
    Literal[
        "auto", "eager", "compile", "cudagraph", "compile-cudagraph", "onnxruntime", "openvino"
    ],
    Option(
        "--backend",
        help="how the model is run when it is timed; auto: cudagraph on a GPU if the model can be "
        "captured, else eager; compiling takes its time, as does exporting for onnxruntime or "
        "openvino",
    ),
]
ObjectiveOption = Annotated[
    Literal["kl", "ce", "top1", "agreement", "cosine", "knn", "probe"] | None,
    Option(
        "--objective",
        help="what to make best: divergence from the baseline (kl, the usual), cross-entropy with "
        "the labels, right answers, or answers that stay the same; of embeddings their cosine "
        "similarity to the baseline's (the usual), or right classes by k-NN or a linear probe",
    ),
]
BatchOption = Annotated[
    int,
    Option("--batch-size", min=1, metavar="N", help="images per pass"),
]
# Images to search, select and report on: many policies known to about two points, the few best
# better known, and a quoted figure that is good to less than one point.
SIZES_TEXT = "256,512,2000"
ImagesOption = Annotated[
    str,
    Option(
        "--images",
        metavar="N,N,N",
        help="images to search, select and report on, all different; one number is of the last",
    ),
]
TargetOption = Annotated[
    str | None,
    Option(
        "--latency-target",
        metavar="TARGET",
        help="5ms, 800us, 0.6x (of the baseline) or 2000/s (images)",
    ),
]
MaxDropOption = Annotated[
    float | None,
    Option(
        "--max-drop",
        metavar="POINTS",
        help="ask for the fastest policy that loses at most so many points of accuracy",
    ),
]
MaxDivergenceOption = Annotated[
    float | None,
    Option(
        "--max-divergence",
        metavar="NATS",
        help="ask for the fastest policy that diverges from the baseline by at most so much",
    ),
]
ConfirmOption = Annotated[
    float | None,
    Option(
        "--confirm-seconds",
        metavar="SECONDS",
        min=0.05,
        max=1e4,
        help="passes to time each policy by, in a session of timing",
    ),
]
SeedOption = Annotated[
    int,
    Option("--seed", min=0, metavar="N", help="seed of everything that is drawn at random"),
]
RescaleOption = Annotated[
    bool,
    Option("--rescale", help="carry presets made for another depth or token count over by ratio"),
]
JsonOption = Annotated[
    bool,
    Option("--json", help="print JSON on stdout instead of text"),
]


def read_sizes(text: str) -> tuple[int, ...]:
    """Read images per split, `512,512,2000`, or a number of images to report on alone.

    Raises:
        BadParameter: It is neither, or a split would be empty.

    >>> read_sizes("100")
    (256, 512, 100)
    """
    parts = text.split(",")
    if len(parts) == 1:
        parts = [*SIZES_TEXT.split(",")[:2], text]
    if len(parts) != 3 or not all(fullmatch(r"\s*[0-9]{1,9}\s*", part) for part in parts):
        raise BadParameter(
            f"--images is {text!r}; it must be three numbers like 512,512,2000, or one"
        )
    sizes = tuple(map(int, parts))
    for purpose, size in zip(("search", "select", "report"), sizes, strict=True):
        if size < 1:
            raise BadParameter(
                f"--images is {text!r}: the {purpose} split asks for {size} images; it needs at "
                f"least 1"
            )
    return sizes


def read_size(text: str) -> int | tuple[int, int]:
    """Read a size of images: a side, or rows and columns where they differ.

    Raises:
        BadParameter: It is none.

    >>> read_size("224x160"), read_size("224,160"), read_size("224x224")
    ((224, 160), (224, 160), 224)
    """
    match = fullmatch(r"([0-9]{1,5})(?:[x,]([0-9]{1,5}))?", text.strip())
    rows, columns = (0, 0) if match is None else (int(match[1]), int(match[2] or match[1]))
    if not rows or not columns:
        raise BadParameter(f"--img-size is {text!r}; it must be a side in pixels, 224, or 224x160")
    return rows if rows == columns else (rows, columns)


def read_options(img_size: str | None, pairs: Sequence[str] | None) -> dict[str, object]:
    """Return what a model is built with; values are read as timm reads them: Python's, or text.

    Raises:
        BadParameter: A pair is none, or the size is given twice.
    """
    options: dict[str, object] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise BadParameter(f"--model-kwargs is {pair!r}; it must be KEY=VALUE")
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            options[key] = value
    size = None if img_size is None else read_size(img_size)
    if size is not None and options.setdefault("img_size", size) != size:
        raise BadParameter(
            f"--img-size is {img_size} and --model-kwargs has img_size={options['img_size']}; "
            f"give one of them"
        )
    return options
