"""The bundled model: DeiT's geometry at a width of 128, with plain timm blocks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TypedDict

import torch
from safetensors.torch import load_file
from timm.layers import build_sincos2d_pos_embed, to_2tuple
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

WEIGHTS = Path(__file__).with_name("demo.safetensors")

IMAGE_PX = 224
PATCH_PX = 16
WIDTH = 128
HEADS = 4
DEPTH = 12
CLASSES = 10
_STEM_CHANNELS = (16, 24, 48)  # thin, for the stem must stay a small part of a pass


_WAVES = 20.0  # the longest wave is 2 pi times as many patches, some nine sides of the grid


class _Options(TypedDict):
    device: torch.device | str | None
    dtype: torch.dtype | None


class ConvStem(nn.Module):
    """Four 3 x 3 convolutions of stride 2 in the place of one 16 x 16 patch embedding.

    They let a transformer learn from scratch where a patch embedding hardly does (Xiao et al.,
    "Early convolutions help transformers see better", 2021). The shipped stem has its norms folded
    into the convolutions.

    Args:
        img_size: Side of the image in pixels.
        patch_size: Must be 16, which is what four strides of 2 make.
        in_chans: Channels of the image.
        embed_dim: Channels of a token.
        bias: Taken for timm's sake; every convolution has a bias.
        dynamic_img_pad: Taken for timm's sake; never pads.
        norm: Put a batch norm behind each hidden convolution, for training.
        device: Where the parameters live.
        dtype: Of the parameters.
    """

    img_size: tuple[int, int]  # rows and columns, in pixels
    grid_size: tuple[int, int]  # the same in patches

    def __init__(
        self,
        img_size: int = IMAGE_PX,
        patch_size: int = PATCH_PX,
        in_chans: int = 3,
        embed_dim: int = WIDTH,
        *,
        bias: bool = True,
        dynamic_img_pad: bool = False,
        norm: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        options: _Options = {"device": device, "dtype": dtype}
        if patch_size != PATCH_PX or dynamic_img_pad or not bias:
            raise ValueError(
                f"the stem makes patches of {PATCH_PX} px, with a bias and without padding"
            )
        self.patch_size = (patch_size, patch_size)
        self.set_input_size(img_size)
        layers: list[nn.Module] = []
        for inputs, outputs in zip((in_chans, *_STEM_CHANNELS), _STEM_CHANNELS, strict=False):
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, **options),
                nn.BatchNorm2d(outputs, **options) if norm else nn.Identity(),
                nn.ReLU(inplace=True),
            ]
        last = nn.Conv2d(_STEM_CHANNELS[-1], embed_dim, 3, stride=2, padding=1, **options)
        self.proj = nn.Sequential(*layers, last)

    def forward(self, images: Tensor) -> Tensor:
        """Return patch tokens, (batch, patches, width), of images, (batch, 3, rows, columns)."""
        tokens: Tensor = self.proj(images)
        return tokens.flatten(2).transpose(1, 2)

    def set_input_size(
        self, img_size: int | tuple[int, int] | None = None, patch_size: int | None = None
    ) -> None:
        """Take images of another size from now on; timm's models call this when theirs changes.

        Args:
            img_size: Side in pixels, or rows and columns; None leaves it as it is.
            patch_size: Taken for timm's sake; must be 16.
        """
        if patch_size not in {None, PATCH_PX}:
            raise ValueError(f"the stem makes patches of {PATCH_PX} px, not of {patch_size} px")
        if img_size is not None:
            self.img_size = to_2tuple(img_size)
        rows, columns = self.img_size
        self.grid_size = (rows // PATCH_PX, columns // PATCH_PX)
        self.num_patches = self.grid_size[0] * self.grid_size[1]

    def fold(self) -> None:
        """Fold each batch norm into the convolution before it; for a trained stem in eval mode."""
        for i in range(0, len(self.proj) - 1, 3):
            convolution, norm = self.proj[i], self.proj[i + 1]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                self.proj[i] = fuse_conv_bn_eval(convolution, norm)
                self.proj[i + 1] = nn.Identity()


# The signature is that of timm's own factories.
def demo_model(
    pretrained: bool = True,  # noqa: FBT001, FBT002
    *,
    img_size: int = IMAGE_PX,
) -> VisionTransformer:
    """Return the bundled model in eval mode.

    It has 196 patch tokens of 224-px images, a class token, 12 blocks and 10 classes. It takes
    images of 0 to 1, normalised with mean and standard deviation 0.5.

    Args:
        pretrained: Load the shipped weights, stored as float16, into float32.
        img_size: Side of the images in pixels; positions are resampled to it.
    """
    model = bare_model()
    if pretrained:
        model.load_state_dict({name: weight.float() for name, weight in load_file(WEIGHTS).items()})
    if img_size != IMAGE_PX:
        model.set_input_size(img_size=img_size)
    return model.eval()


def bare_model(*, norm: bool = False) -> VisionTransformer:
    """Return the model untrained; with `norm`, as it is trained (see `ConvStem`)."""
    model = VisionTransformer(
        img_size=IMAGE_PX,
        patch_size=PATCH_PX,
        num_classes=CLASSES,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        embed_layer=partial(ConvStem, norm=norm),
        weight_init="jax",  # Xavier: timm's default, 0.02, is too timid for a width of 128
    )
    start_positions(model)
    # What timm.data.resolve_data_config reads.
    model.pretrained_cfg = model.default_cfg = {
        "architecture": "demo",
        "num_classes": CLASSES,
        "input_size": (3, IMAGE_PX, IMAGE_PX),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "crop_pct": 1.0,
        "interpolation": "bicubic",
    }
    return model


def start_positions(model: VisionTransformer) -> None:
    """Give an untrained model positions of sines and cosines to start from.

    Patches are dropped from the first step on, so what is left must say where it lies.
    """
    sides = [IMAGE_PX // PATCH_PX] * 2
    waves = build_sincos2d_pos_embed(sides, dim=model.embed_dim, temperature=_WAVES)
    with torch.no_grad():
        model.pos_embed[:, 1:] = waves / 2
