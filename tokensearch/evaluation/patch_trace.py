"""Follow the patches of images through a model under a policy."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tokensearch import runtime
from tokensearch.data.pixels import Preprocessing
from tokensearch.data.splits import Split
from tokensearch.documents import MAX_TEXT
from tokensearch.policy import Policy
from tokensearch.records.patch_trace import PatchTrace, PatchTraces, TracedImage, write_traces
from tokensearch.records.run_folder import RunFolder
from tokensearch.runtime.host import unwrap
from tokensearch.runtime.towers import tower_of

# Of the JPEG in which patches are looked at: larger inputs are shrunk.
SIDE_PX = 392
# The first that makes a JPEG which `read_traces` takes: noise of that size has 118 kB at 85.
QUALITIES, MOST_BYTES = (85, 60, 30), MAX_TEXT // 4 * 3  # base64 makes four characters of three
IMAGES = 3  # of a run


def write_answer_traces(
    model: nn.Module,
    split: Split,
    config: Mapping[str, object],
    policy: Policy | None,
    *,
    folder: RunFolder,
) -> None:
    """Keep in a run folder where the patches of a few of its images go under its answer.

    They are the first images of `split`. Where the answer keeps every patch, or there is none,
    nothing is kept.
    """
    folder.patches.unlink(missing_ok=True)  # of another process
    if policy is None or not policy.reduces:
        return
    images, _ = split.part(0, min(IMAGES, len(split)))
    parameter = next(model.parameters())
    names = [f"image {number} of the {split.purpose} split" for number in range(1, len(images) + 1)]
    traced = trace_images(
        model, policy, images.to(parameter.device, parameter.dtype), names=names, config=config
    )
    write_traces(PatchTraces(policy.schedule_hash, traced), folder.patches)


@torch.inference_mode()
def trace_patches(model: nn.Module, policy: Policy, images: Tensor) -> tuple[PatchTrace, ...]:
    """Say where the patches of each image went.

    images  (B, 3, rows, columns), as the model takes them
    """
    with runtime.applied(model, policy) as following:
        blocks = [block.cpu() for block in runtime.trace(following, images)]
    rows, columns = images.shape[-2:]
    wide = count_columns(blocks[0].shape[1], rows / columns, patch_aspect(model))
    return tuple(
        PatchTrace(wide, tuple(tuple(block[index].tolist()) for block in blocks))
        for index in range(len(images))
    )


def trace_images(
    model: nn.Module,
    policy: Policy,
    images: Tensor,
    *,
    names: Sequence[str],
    config: Mapping[str, object],
) -> tuple[TracedImage, ...]:
    """Say where the patches of each image went, and keep the images as they are seen.

    images  (B, 3, rows, columns), as the model takes them
    config  timm's data config: how they were normalised
    """
    preprocessing = Preprocessing.of(config)
    traces = trace_patches(model, policy, images)
    shown = [encode_image(image, preprocessing) for image in images]
    return tuple(map(TracedImage, names, shown, traces))


def encode_image(image: Tensor, preprocessing: Preprocessing) -> bytes:
    """Return an image (3, rows, columns) that was normalised, as a JPEG to look at."""
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std)
    )
    shares = image.detach().float().cpu() * std + mean
    pixels = (shares * 255).round().clamp(0, 255).permute(1, 2, 0).numpy().astype(np.uint8)
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE_PX, SIDE_PX))
    for quality in QUALITIES:
        encoded = BytesIO()
        picture.save(encoded, "JPEG", quality=quality)
        if encoded.tell() <= MOST_BYTES:
            break
    return encoded.getvalue()


def count_columns(patches: int, aspect: float, patch_aspect: float = 1.0) -> int:
    """Return how many columns the grid of an image's patches has.

    aspect        rows over columns of the image, in pixels
    patch_aspect  the same of a patch

    The patches of a model of another size than the image's still fill it row by row, so that the
    pair of factors with the nearest shape is the grid.

    >>> count_columns(196, 1.0), count_columns(140, 224 / 160), count_columns(98, 1.0, 2.0)
    (14, 10, 14)
    """
    factors = (n for n in range(1, patches + 1) if patches % n == 0)
    return min(factors, key=lambda n: abs(patches / n / n - aspect / patch_aspect))


def patch_aspect(model: nn.Module) -> float:
    """Return rows over columns of a model's patches, in pixels; 1 where it does not say."""
    inner: Any = unwrap(model)
    tower = tower_of(inner)
    embed = getattr(inner, "patch_embed", None) or getattr(inner, "embeds", None)
    size = getattr(embed, "patch_size", None) if tower is None else tower.patch_size
    return float(size[0] / size[1]) if isinstance(size, tuple | list) else 1.0
