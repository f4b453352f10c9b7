"""What a pass computes and moves is counted operator by operator, in the range it runs in."""

from types import SimpleNamespace

import pytest
import timm
import torch
from torch import nn

from tokensearch.measure import WorkCounter, measure_ceilings, roofline

CPU = torch.device("cpu")


def counted(run: object) -> dict[tuple[int | None, str], tuple[float, float]]:
    counting = WorkCounter()
    with torch.inference_mode(), counting:
        run(counting)
    return {(one.block, one.phase): (one.flop, one.bytes) for one in counting.work}


def test_a_product_counts_two_operations_for_each_multiplication() -> None:
    x, w = torch.ones(3, 5), torch.ones(5, 7)

    def run(counting: WorkCounter) -> None:
        with counting.around(2, "qkv"):
            x @ w

    flop, moved = counted(run)[2, "qkv"]
    assert flop == 2 * 3 * 5 * 7
    assert moved == 4 * (15 + 35 + 21)


def test_a_linear_layer_is_counted_as_the_product_it_is() -> None:
    layer, x = nn.Linear(5, 7), torch.ones(2, 3, 5)

    found = counted(lambda counting: layer(x))

    assert sum(flop for flop, _ in found.values()) == 2 * 6 * 5 * 7


def test_attention_is_counted_as_its_two_products() -> None:
    q = torch.ones(1, 2, 11, 4)

    found = counted(lambda _: torch.nn.functional.scaled_dot_product_attention(q, q, q))

    assert sum(flop for flop, _ in found.values()) == 2 * 2 * (2 * 11 * 11 * 4)


def test_a_pass_of_deit_s_has_the_multiply_accumulates_that_one_counts_by_hand() -> None:
    model, tokens, width = timm.create_model("deit_small_patch16_224").eval(), 197, 384
    counting = WorkCounter()
    with torch.inference_mode(), counting:
        model(torch.zeros(1, 3, 224, 224))

    block = 12 * tokens * width * width + 2 * tokens * tokens * width
    embed, head = 196 * 768 * width, width * 1000
    assert sum(one.flop for one in counting.work) == 2 * (12 * block + embed + head)


def test_the_cpus_attention_is_counted_where_the_registry_lacks_it() -> None:
    """As in torch 2.11; where the registry has it, both agree."""
    q, k, v = torch.ones(2, 3, 5, 4), torch.ones(2, 3, 7, 4), torch.ones(2, 3, 7, 8)
    formula = roofline.FORMULAS[torch.ops.aten._scaled_dot_product_flash_attention_for_cpu]
    by_hand = 2 * 2 * 3 * 5 * 7 * (4 + 8)

    assert roofline._attention_flop(q, k, v, 0.0, scale=None) == by_hand
    assert formula(q, k, v, out_val=(q, q)) == by_hand


def test_what_is_expanded_moves_once() -> None:
    x, bias = torch.ones(6, 4), torch.ones(1, 4).expand(6, 4)

    found = counted(lambda _: x + bias)

    assert sum(moved for _, moved in found.values()) == 4 * (24 + 4 + 24)


def test_a_view_moves_nothing() -> None:
    assert counted(lambda _: torch.ones(8, 8)) != {}
    x = torch.ones(8, 8)

    found = counted(lambda _: x.view(64)[:32].reshape(4, 8))

    assert sum(moved for _, moved in found.values()) == 0


def test_what_runs_in_a_range_within_a_range_is_the_inner_ones() -> None:
    x = torch.ones(4, 4)

    def run(counting: WorkCounter) -> None:
        with counting.around(0, "attention"), counting.around(0, "norm"):
            x @ x

    assert set(counted(run)) == {(0, "norm")}


def test_ceilings_are_the_fastest_of_a_few_passes() -> None:
    class Script:
        """Spans alternate between 40 and 20 ms."""

        warm = True

        def __init__(self) -> None:
            self.spans = 0

        def time_ms(self, run: object) -> float:
            self.spans += 1
            return 40.0 if self.spans % 2 else 20.0

    top = measure_ceilings(CPU, torch.float32, Script())

    assert top.gflop_s == 2 * 2048**3 / 20.0 / 1e6
    assert top.gbyte_s == 2 * 2**25 * 4 / 20.0 / 1e6


def test_a_gpu_is_given_enough_to_be_busy_if_it_has_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gigabyte, gpu = 2**30, torch.device("cuda")
    free = SimpleNamespace(bytes=80 * gigabyte)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free.bytes, 80 * gigabyte))

    assert roofline._sizes(gpu, torch.bfloat16) == (8192, gigabyte // 2)
    assert roofline._sizes(gpu, torch.float32) == (8192, gigabyte // 4)
    free.bytes = 2 * gigabyte
    assert roofline._sizes(gpu, torch.bfloat16) == (8192, gigabyte // 4)
