"""Tensors for steps that learn, drawn at random."""

from array import array
from math import prod
from random import Random

from tokensearch.policy import RawTensor, Step, Tensors
from tokensearch.policy.steps import tensors_of


def random_tensors(width: int, *steps: Step, seed: int = 0) -> Tensors:
    """What the steps name, in single precision."""
    random = Random(seed)
    drawn: dict[str, RawTensor] = {}
    for step in steps:
        for name, sizes in tensors_of(step, width).items():
            shape = tuple(4 if size is None else size for size in sizes)
            numbers = array("f", (random.gauss() for _ in range(prod(shape))))
            drawn[name] = RawTensor("F32", shape, numbers.tobytes())
    return Tensors.pack(drawn)
