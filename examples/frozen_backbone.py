"""Features of a frozen backbone, such as DINOv2, with fewer tokens; a linear probe on top.

    python -m examples.frozen_backbone IMAGES

IMAGES is a folder with a folder of pictures per class.
"""

import sys
from pathlib import Path

import timm
import torch
from timm.data import create_dataset, create_loader, resolve_data_config
from torch import Tensor, nn

import tokensearch


@torch.inference_mode()
def extract(backbone: nn.Module, folder: Path) -> tuple[Tensor, Tensor]:
    """Return features (images, width), each of length 1, and labels."""
    config = resolve_data_config(model=backbone)
    loader = create_loader(
        create_dataset("", root=str(folder)),
        config["input_size"],
        batch_size=8,
        is_training=False,
        mean=config["mean"],
        std=config["std"],
        num_workers=0,
        use_prefetcher=False,
        persistent_workers=False,
        device=torch.device("cpu"),
    )
    batches = [(backbone(images), labels) for images, labels in loader]
    features = torch.cat([each for each, _ in batches])
    return nn.functional.normalize(features), torch.cat([labels for _, labels in batches])


def fit_probe(features: Tensor, labels: Tensor) -> Tensor:
    """Return weights (width, classes) of ridge regression on the classes."""
    wanted = nn.functional.one_hot(labels).to(features)
    gram = features.T @ features + 1e-2 * torch.eye(features.shape[1])
    return torch.linalg.solve(gram, features.T @ wanted)


def main(backbone: nn.Module, folder: Path, policy: str) -> tuple[float, float]:
    """Compare a backbone with itself under a policy: cosine, and agreement of the probes."""
    before, labels = extract(backbone, folder)
    weights = fit_probe(before, labels)
    with tokensearch.applied(backbone, tokensearch.preset(policy, backbone, rescale=True)):
        after, _ = extract(backbone, folder)
    cosine = float((before * after).sum(dim=1).mean())
    same = (before @ weights).argmax(dim=1) == (after @ weights).argmax(dim=1)
    return cosine, float(same.float().mean())


if __name__ == "__main__":
    dino = timm.create_model("vit_small_patch14_dinov2.lvd142m", pretrained=True).eval()
    cosine, same = main(dino, Path(sys.argv[1]), "tome-r13")
    sys.stdout.write(f"cosine {cosine:.3f}, probe unchanged for {100 * same:.1f} % of images\n")
