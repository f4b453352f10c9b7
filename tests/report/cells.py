"""The cell that all made-up figures belong to."""

from tokensearch.records import Cell, Machine

CELL = Cell(
    device="cpu",
    dtype="float32",
    batch=8,
    resolution=224,
    backend="eager",
    threads=4,
    machine=Machine(
        processor="Example CPU 3000",
        cores=4,
        accelerator=None,
        system="Linux x86_64",
        versions=(("python", "3.12.0"), ("torch", "2.9.0")),
    ),
)
