import pytest
import torch

import tokensearch
from tests.ops import noise
from tests.runtime.test_apply import vit
from tokensearch.errors import ModelError
from tokensearch.policy import Merger
from tokensearch.runtime.host import as_host
from tokensearch.tune.merger import begin_merger, k_means, to_raw


def test_centres_are_the_means_of_groups_that_lie_apart() -> None:
    groups = 50 * torch.eye(4, dtype=torch.float64)
    points = (groups[:, None] + noise(4, 30, 4)).flatten(0, 1)

    centres = k_means(points, 4)

    nearest = torch.cdist(groups, centres).argmin(dim=1)
    assert sorted(nearest.tolist()) == [0, 1, 2, 3]
    means = points.view(4, 30, 4).mean(dim=1)
    torch.testing.assert_close(centres[nearest], means, rtol=0, atol=1e-9)


def test_more_clusters_than_distinct_points_are_no_trouble() -> None:
    assert k_means(torch.ones(5, 3), 4).isfinite().all()


@pytest.mark.parametrize("changes", [{}, {"class_token": False, "global_pool": "avg"}])
def test_a_merger_begins_with_centres_of_the_tokens_that_it_sees(
    changes: dict[str, object],
) -> None:
    model, images = vit(**changes), torch.randn(6, 3, 32, 32)

    policy = begin_merger(model, images, Merger(1, 4, "m", scale=24**-0.5))

    assert policy == begin_merger(model, images, Merger(1, 4, "m", scale=24**-0.5))
    assert policy.patch_tokens_per_block == (16, 16, 4, 4)
    with torch.inference_mode():
        assert tokensearch.apply(model, policy)(images).isfinite().all()


def test_a_merger_after_the_last_block_has_nothing_to_begin_with() -> None:
    with pytest.raises(ModelError, match="needs a block that follows"):
        begin_merger(vit(), torch.randn(1, 3, 32, 32), Merger(3, 4, "m"))


def test_the_norm_of_blocks_that_name_it_otherwise_is_taken_too() -> None:
    pytest.importorskip("transformers", reason="needs transformers")
    from tests.runtime.towers import build, pictures

    model = build("ViTForImageClassification")
    norm = as_host(model).blocks[1].layernorm_before

    policy = begin_merger(model, pictures(model), Merger(0, 2, "m"))

    assert policy.tensors is not None
    assert policy.tensors.by_name["m.norm.weight"] == to_raw(norm.weight)


def test_centres_of_a_model_in_half_precision_are_those_of_single_precision() -> None:
    model, images = vit(), torch.randn(6, 3, 32, 32)
    step = Merger(1, 4, "m", scale=24**-0.5)
    whole = begin_merger(model, images, step).tensors

    halves = begin_merger(model.bfloat16(), images.bfloat16(), step).tensors

    assert whole is not None
    assert halves is not None
    queries = [
        torch.frombuffer(bytearray(each.by_name["m.queries"].data), dtype=torch.float32)
        for each in (whole, halves)
    ]
    assert torch.corrcoef(torch.stack(queries))[0, 1] > 0.99


def test_sums_over_many_tokens_do_not_overflow_in_half_precision() -> None:
    points = torch.full((2000, 4), 100.0, dtype=torch.float16)

    assert k_means(points, 2).isfinite().all()
