"""Compile the fused kernels for GPUs that are not at hand: registers, shared memory, spills."""

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tokensearch.ops.triton import attention, launch, move, select

CAPABILITIES = (90, 80)  # H100 and A100
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
THREADS = 32  # of a warp
CHUNKS = (16, 32)  # of discarded tokens, by how many there are
# Types of pointers that are not those of the features.
POINTERS = {
    "SCORE": "*fp32", "LOGITS": "*fp32", "BEST": "*fp32", "TOP": "*i64", "REST": "*i64",
    "INDEX": "*i64", "STAY": "*i64", "LEAVE": "*i64", "KEPT": "*i64", "GONE": "*i64",
    "TOP_PARTNER": "*i64", "PARTNER": "*i32", "WEIGHT": "*fp32",
}  # fmt: skip
FEATURES = {"X", "Q", "K", "V", "QUERY", "KEYS", "BIAS", "SIZE", "OUT", "OUT_SIZE", "OUT_LOG"}
REALS = {"scale", "floor", "tiny"}
STRIDES = ("_image", "_head", "_token")  # multiples of a width, as all pointers are aligned


class Case(NamedTuple):
    """A kernel with what is fixed when it is compiled, as DeiT-S has it."""

    kernel: Any
    constants: dict[str, Any]
    tile: launch.Tile


def list_cases(dtype: str) -> list[Case]:
    precision = "ieee" if dtype == "fp32" else "tf32"
    rows, columns = launch.FOLDED.rows, launch.FOLDED.columns
    folded = {"HAS_SIZE": True, "ROWS": rows, "COLUMNS": columns}
    split = {"TOP_BY_RANK": True, "REST_BY_RANK": False, "HAS_PARTNER": True, "BLOCK": 256}
    scored = {"HAS_BIAS": True, "HEADS": 8, "WIDTH": 64, "BLOCK": launch.SCORED.rows // (8 * 64)}
    matched = {"PRECISION": precision, "WIDTH": 64, "ROWS": launch.MATCHED.rows}
    matched["BLOCK"] = launch.MATCHED.columns
    ranked = {"PRECISION": precision, "ROWS": launch.RESEMBLED.rows, "COLUMNS": 64}
    ranked["BLOCK"] = launch.RESEMBLED.columns
    gathered = {"HAS_SIZE": True, "ROWS": launch.GATHERED.rows, "COLUMNS": 512}
    summed = {"HAS_SIZE": True, "HAS_WEIGHT": False, "CHUNK": launch.SUMMED.rows}
    summed["COLUMNS"] = launch.SUMMED.columns
    attended = {"WIDTH": 64, "ROWS": launch.ATTENDED.rows, "BLOCK": launch.ATTENDED.columns}
    found = [
        Case(select.split_by_rank, split, launch.RANKED),
        Case(select.attention_logits, scored, launch.SCORED),
        Case(select.average_softmax, {"HEADS": 8, "BLOCK": 256}, launch.AVERAGED),
        Case(move.gather_rows, gathered, launch.GATHERED),
        Case(move.sum_rows, summed, launch.SUMMED),
        Case(select.match_nearest, matched, launch.MATCHED),
        *(Case(move.fold_pairs, folded | {"CHUNK": n}, launch.FOLDED) for n in CHUNKS),
        Case(select.match_ranked, ranked, launch.RESEMBLED),
        *(Case(move.fold_ranked, folded | {"CHUNK": n}, launch.FOLDED) for n in CHUNKS),
    ]
    return (
        found
        if dtype == "fp32"
        else [*found, Case(attention.biased_attention, attended, launch.ATTENDED)]
    )


def find_resources(capabilities: Sequence[int] = CAPABILITIES) -> Iterator[dict[str, Any]]:
    """Yield what each kernel takes of a multiprocessor, by capability and number type."""
    for capability in capabilities:
        for dtype, name in DTYPES.items():
            for case in list_cases(dtype):
                yield {
                    "kernel": case.kernel.__name__,
                    "capability": capability,
                    "dtype": name,
                } | compile_case(case, dtype, capability)


def compile_case(case: Case, dtype: str, capability: int) -> dict[str, Any]:
    names = case.kernel.arg_names
    types = {name: find_type(name, case, dtype) for name in names}
    aligned = [
        name
        for name in names
        if types[name].startswith("*") or (name.endswith(STRIDES) and name != "bias_image")
    ]
    source = ASTSource(
        fn=case.kernel,
        signature=types,
        constexprs={(names.index(name),): value for name, value in case.constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", capability, THREADS),
        options={"num_warps": case.tile.warps, "num_stages": case.tile.stages},
    )
    registers, stack = read_usage(compiled.asm["cubin"])
    return {
        "registers": registers,
        "spilled_bytes": stack,
        "shared_bytes": compiled.metadata.shared,
        "constants": case.constants,
    }


def find_type(name: str, case: Case, dtype: str) -> str:
    if name in case.constants:
        return "constexpr"
    if case.kernel is move.fold_pairs and name == "PARTNER":
        return "*i64"
    # K is a count where keys are not its neighbour.
    if name in FEATURES and not (name == "K" and case.kernel is not attention.biased_attention):
        return f"*{dtype}"
    return POINTERS.get(name, "fp32" if name in REALS else "i32")


def read_usage(binary: bytes) -> tuple[int, int]:
    """Registers of a thread, and bytes that it spills: the compiler puts them on the stack."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        asked = [str(tool), "--dump-resource-usage", file.name]
        said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    usage = re.search(r"REG:(\d+) STACK:(\d+)", said)
    if usage is None:
        raise ValueError(f"cuobjdump says no registers: {said[:200]}")
    return int(usage[1]), int(usage[2])
