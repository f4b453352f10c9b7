"""Where patches go, on models small enough to follow by hand."""

from io import BytesIO
from pathlib import Path

import torch
from PIL import Image

from tests.search.tiny import CONFIG, model
from tokensearch.data.pixels import Preprocessing
from tokensearch.evaluation.patch_trace import SIDE_PX, encode_image, trace_patches
from tokensearch.policy import Policy, Pool, Prune
from tokensearch.records.patch_trace import (
    PatchTrace,
    PatchTraces,
    TracedImage,
    read_traces,
    write_traces,
)
from tokensearch.runtime import describe, policy_of


def test_a_trace_counts_what_each_block_drops_and_merges() -> None:
    host = model()
    policy = Policy(describe(host), (Prune(1, 12), Pool(3, 8)), last_block="prefix_only")

    traces = trace_patches(host, policy, torch.randn(2, 3, 32, 32))

    assert policy_of(host) is None
    for trace in traces:
        assert (trace.rows, trace.columns) == (4, 4)
        done = [(one.block, one.left, one.dropped, one.merged) for one in trace.changes]
        assert done == [(1, 12, 4, 0), (3, 8, 0, 4)]
        assert sum(trace.sizes(3).values()) == 12


def test_the_grid_of_a_rectangle_has_its_rows_and_columns() -> None:
    host = model(img_size=(32, 64), patch_size=(8, 16))
    policy = Policy(describe(host), (Prune(0, 9),))
    wide = model(img_size=(16, 48))

    (trace,) = trace_patches(host, policy, torch.randn(1, 3, 32, 64))
    (other,) = trace_patches(wide, Policy(describe(wide), (Pool(0, 8),)), torch.randn(1, 3, 16, 48))

    assert (trace.rows, trace.columns) == (4, 4)
    assert (other.rows, other.columns) == (2, 6)


def test_an_image_is_kept_as_it_was_before_it_was_normalised() -> None:
    preprocessing = Preprocessing.of(CONFIG)
    flat = torch.full((3, 32, 32), 90, dtype=torch.uint8)

    jpeg = encode_image(preprocessing.normalised(flat), preprocessing)

    assert Image.open(BytesIO(jpeg)).convert("RGB").getpixel((5, 5)) == (90, 90, 90)


def test_an_image_of_noise_can_be_read_back(tmp_path: Path) -> None:
    noise = torch.rand(3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(0))
    plain = Preprocessing.of({"input_size": noise.shape, "mean": (0.0,) * 3, "std": (1.0,) * 3})
    traced = TracedImage("noise", encode_image(noise, plain), PatchTrace(2, ((0, 1, 2, 3),)))
    traces = PatchTraces("0", (traced,))

    write_traces(traces, tmp_path / "patches.json")

    assert read_traces(tmp_path / "patches.json") == traces
