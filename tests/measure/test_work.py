"""What a pass computes and moves is counted operator by operator, in the range it runs in."""

import torch
from torch import nn

from tokensearch.measure import Counting, ceilings

CPU = torch.device("cpu")


def counted(run: object) -> dict[tuple[int | None, str], tuple[float, float]]:
    counting = Counting()
    with torch.inference_mode(), counting:
        run(counting)
    return {(one.block, one.phase): (one.flop, one.bytes) for one in counting.work}


def test_a_product_counts_two_operations_for_each_multiplication() -> None:
    x, w = torch.ones(3, 5), torch.ones(5, 7)

    def run(counting: Counting) -> None:
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


def test_a_view_moves_nothing() -> None:
    assert counted(lambda _: torch.ones(8, 8)) != {}
    x = torch.ones(8, 8)

    found = counted(lambda _: x.view(64)[:32].reshape(4, 8))

    assert sum(moved for _, moved in found.values()) == 0


def test_what_runs_in_a_range_within_a_range_is_the_inner_ones() -> None:
    x = torch.ones(4, 4)

    def run(counting: Counting) -> None:
        with counting.around(0, "attention"), counting.around(0, "norm"):
            x @ x

    assert set(counted(run)) == {(0, "norm")}


def test_ceilings_are_the_fastest_of_a_few_passes() -> None:
    class Script:
        """Spans alternate between 40 and 20 ms."""

        def __init__(self) -> None:
            self.spans = 0

        def time_ms(self, run: object) -> float:
            self.spans += 1
            return 40.0 if self.spans % 2 else 20.0

    top = ceilings(CPU, torch.float32, Script())

    assert top.gflop_s == 2 * 2048**3 / 20.0 / 1e6
    assert top.gbyte_s == 2 * 2**25 * 4 / 20.0 / 1e6
