"""The cells that all made-up figures belong to, one on a CPU and one on a GPU."""

from dataclasses import replace

from tokensearch.records.measurements import Cell, Machine

MACHINE = Machine(
    processor="Example CPU 3000",
    cores=4,
    accelerator=None,
    system="Linux x86_64",
    versions=(("python", "3.12.0"), ("torch", "2.9.0")),
)
CELL = Cell(
    device="cpu",
    dtype="float32",
    batch=8,
    resolution=224,
    backend="eager",
    threads=4,
    machine=MACHINE,
)

# Nothing in these two is unknown.
GPU = replace(
    MACHINE,
    accelerator="Example GPU",
    governor="performance",
    driver="570.1",
    max_clock_mhz=1980,
    power_limit_w=700.0,
)
ON_GPU = replace(
    CELL, device="cuda", dtype="float16", machine=GPU, cache="flushed", attention="flash"
)
