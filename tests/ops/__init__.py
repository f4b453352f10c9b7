import torch

from tokensearch.ops import Tokens


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sequence(images: int = 2, prefix: int = 1, patches: int = 6) -> Tokens:
    """Features that name their own place: token t of image b holds 100 b + t."""
    place = torch.arange(prefix + patches) + 100 * torch.arange(images)[:, None]
    return Tokens(place[..., None].double())
