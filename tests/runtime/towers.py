"""Small models of transformers, from configurations: nothing is downloaded."""

import importlib
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("transformers", reason="needs transformers: install tokensearch[transformers]")

SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
}
REGISTERS = {"num_register_tokens": 4}

# Every class that follows policies: its folder, the configuration's class, what else it is made of.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ViTModel": ("vit", "ViTConfig", {}),
    "ViTForImageClassification": ("vit", "ViTConfig", {"num_labels": 7}),
    "DeiTModel": ("deit", "DeiTConfig", {}),
    "DeiTForImageClassification": ("deit", "DeiTConfig", {"num_labels": 7}),
    "DeiTForImageClassificationWithTeacher": ("deit", "DeiTConfig", {"num_labels": 7}),
    "Dinov2Model": ("dinov2", "Dinov2Config", {"layerscale_value": 0.5}),
    "Dinov2ForImageClassification": ("dinov2", "Dinov2Config", {"num_labels": 7}),
    "Dinov2WithRegistersModel": (
        "dinov2_with_registers",
        "Dinov2WithRegistersConfig",
        {**REGISTERS, "use_swiglu_ffn": True},
    ),
    "Dinov2WithRegistersForImageClassification": (
        "dinov2_with_registers",
        "Dinov2WithRegistersConfig",
        {**REGISTERS, "num_labels": 7},
    ),
    "DINOv3ViTModel": ("dinov3_vit", "DINOv3ViTConfig", {**REGISTERS, "use_gated_mlp": True}),
    "CLIPVisionModel": ("clip", "CLIPVisionConfig", {}),
    "CLIPVisionModelWithProjection": ("clip", "CLIPVisionConfig", {"projection_dim": 24}),
    "CLIPForImageClassification": ("clip", "CLIPConfig", {"num_labels": 7}),
    "SiglipVisionModel": ("siglip", "SiglipVisionConfig", {}),
    "SiglipForImageClassification": ("siglip", "SiglipConfig", {"num_labels": 7}),
}


def build(name: str, *, attention: str = "sdpa", seed: int = 0, **changes: Any) -> Any:
    """Return a model in evaluation mode, whose biases and tokens are none of them zero."""
    folder, config_name, more = MODELS[name]
    package = f"transformers.models.{folder}"
    config_class = getattr(
        importlib.import_module(f"{package}.configuration_{folder}"), config_name
    )
    model_class = getattr(importlib.import_module(f"{package}.modeling_{folder}"), name)
    if config_name in ("CLIPConfig", "SiglipConfig"):
        config = config_class(vision_config={**SIZES, **changes}, **more)
    else:
        config = config_class(**{**SIZES, **more, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class._from_config(config, attn_implementation=attention).eval()
    randomise(model, seed)
    return model


def randomise(model: nn.Module, seed: int) -> None:
    """Give every parameter values at which no token is like another."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        with torch.no_grad():
            noise = torch.randn(parameter.shape, generator=generator)
            spread = 0.2 if parameter.dim() > 1 else 0.1
            parameter.mul_(0.5).add_(noise * spread)


def pictures(model: nn.Module, images: int = 2, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(images, 3, size, size, generator=generator)
