"""A race must not throw out what is no worse, and must not take all day over what is."""

import torch
from scipy.stats import wilcoxon
from torch import Tensor

from tokensearch.evaluation.predictions import CHUNK
from tokensearch.search.early_stopping import FIRST_LOOK, MARGIN_FACTOR, significantly_worse

IMAGES, RACES = 256, 400
N_LOOKS = IMAGES // CHUNK - 1


def divergences(generator: torch.Generator, scale: float = 1.0) -> Tensor:
    """Losses as divergences make them: a few images most of the sum."""
    return scale * torch.empty(IMAGES, dtype=torch.float64).log_normal_(-6, 2, generator=generator)


def images_run(losses: Tensor, incumbent: Tensor, margin_factor: float = MARGIN_FACTOR) -> int:
    """Images after which a race ends."""
    for seen in range(CHUNK, IMAGES, CHUNK):
        if significantly_worse(
            losses[:seen], incumbent, n_looks=N_LOOKS, margin_factor=margin_factor
        ):
            return seen
    return IMAGES


def test_what_is_not_clearly_worse_is_stopped_at_most_as_often_as_promised() -> None:
    generator = torch.Generator().manual_seed(0)
    races = [(MARGIN_FACTOR * divergences(generator), divergences(generator)) for _ in range(RACES)]

    stopped = sum(images_run(one, other) < IMAGES for one, other in races)

    assert stopped <= 0.05 * RACES


def test_of_right_answers_as_well() -> None:
    generator = torch.Generator().manual_seed(1)
    races = (torch.rand(2, IMAGES, generator=generator) > 0.97 for _ in range(RACES))

    stopped = sum(images_run(one.double(), other.double(), 1) < IMAGES for one, other in races)

    assert stopped <= 0.05 * RACES


def test_a_model_that_errs_often_does_not_keep_a_race_from_ending() -> None:
    """Wrong answers are mostly the model's own, and say nothing for a schedule."""
    dice = torch.rand(IMAGES, generator=torch.Generator().manual_seed(4))

    assert images_run((dice < 0.42).double(), (dice < 0.28).double(), 1) < IMAGES


def test_what_diverges_five_times_as_far_is_stopped_early() -> None:
    generator = torch.Generator().manual_seed(2)
    runs = [
        images_run(5 * losses, losses) for losses in (divergences(generator) for _ in range(100))
    ]

    assert sum(runs) / len(runs) < IMAGES / 2


def test_nothing_is_stopped_before_the_first_look() -> None:
    awful = torch.full((FIRST_LOOK,), 10.0)

    assert not significantly_worse(awful[:-1], torch.zeros(FIRST_LOOK), n_looks=N_LOOKS)
    assert significantly_worse(
        awful, torch.zeros(FIRST_LOOK), n_looks=N_LOOKS, margin_factor=MARGIN_FACTOR
    )


def test_the_verdict_is_that_of_wilcoxons_signed_rank_test() -> None:
    generator = torch.Generator().manual_seed(5)
    for _ in range(50):
        # rounded, so that there are ties and images without a difference
        losses, incumbent = (torch.rand(2, 64, generator=generator) * 8).round().double()
        p = wilcoxon(losses - 0.9 * incumbent, alternative="greater").pvalue

        for level in (p * N_LOOKS * 0.99, p * N_LOOKS * 1.01):
            assert significantly_worse(
                losses, incumbent, n_looks=N_LOOKS, margin_factor=0.9, level=1 - level
            ) == bool(p < level / N_LOOKS and losses.mean() > incumbent.mean())


def test_what_is_worse_on_most_images_and_better_in_the_mean_goes_on() -> None:
    incumbent = torch.full((64,), 0.1)
    incumbent[0] = 100.0

    assert not significantly_worse(
        10 * incumbent.clamp(max=0.1), incumbent, n_looks=N_LOOKS, margin_factor=MARGIN_FACTOR
    )


def test_what_is_worse_by_little_goes_on() -> None:
    """Images may differ consistently by what the next few of them make good."""
    incumbent = divergences(torch.Generator().manual_seed(3))

    assert images_run(1.4 * incumbent, incumbent) == IMAGES
    assert images_run(1.6 * incumbent, incumbent) == FIRST_LOOK


def test_equal_answers_are_never_worse() -> None:
    assert not significantly_worse(torch.ones(128), torch.ones(256), n_looks=N_LOOKS)
