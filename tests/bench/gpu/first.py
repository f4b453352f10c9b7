"""The first plan: what a first GPU must say, the surest and most wanted first.

Limits add up to nine minutes. The whole is held to a little less, so the last part, whose cold
compiler takes all that it is given, gets what the others left. What a bench is given (`--within`)
leaves a part some ten seconds to load, three to be interrupted in, and its last result its time.
"""

from functools import partial

from tests.bench.gpu.parts import ROOT, Part, Setting
from tests.bench.gpu.shown import (
    show_comparisons,
    show_kernels,
    show_ledger,
    show_noise,
    show_run,
    show_tests,
)
from tests.bench.probe.shown import show_probe

MARKED = "pytest.mark.gpu"
SMALL = "vit_tiny_patch16_224"  # for CPUs, on which parts are only tried


def bench(name: str, setting: Setting, *options: str, out: str) -> list[str]:
    return ["-m", "tests.bench", name, *options, "--out", str(setting.out / out)]


def probe(setting: Setting) -> list[str]:
    within = "12" if setting.tried else "26"
    return bench("probe", setting, "--device", setting.device, "--within", within, out="probe.json")


def marked(setting: Setting, *, name: str, mark: str) -> list[str]:
    """Pytest on the files that hold GPU tests: others may need what such a machine lacks."""
    found = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if MARKED in path.read_text(encoding="utf-8")
    ]
    return [
        *("-m", "pytest", "-m", mark, "-vv", "--tb=short", "-ra", "--color=no"),
        *("-p", "no:cacheprovider", "-p", "tests.bench.gpu.outcomes"),
        *("--outcomes", str(setting.out / f"{name}.json"), "--continue-on-collection-errors"),
        *found,
    ]


def kernels(setting: Setting) -> list[str]:
    if setting.tried:
        return bench("kernels", setting, out="kernels.json")  # says that there is no GPU
    return bench("kernels", setting, "--within", "17", out="kernels.json")


def overhead(setting: Setting) -> list[str]:
    asked = ["--batch", "1", "64", "--kernels", "auto", "torch", "--seconds", "2"]
    asked += ["--within", "60"]
    if setting.tried:
        asked = ["--batch", "1", "--case", "prune-3", "--seconds", "0.5"]
    return bench("runtime", setting, *setting.cell, *asked, out="overhead.json")


def diff(setting: Setting, *, backend: str) -> list[str]:
    model, batch, seconds, way = "deit_small_patch16_224", "64", "4", backend
    if setting.tried:
        model, batch, seconds, way = SMALL, "1", "1", "eager"
    return [
        *("-m", "tokensearch.cli", "diff", "none", "tome-r13", "--model", model),
        *setting.cell[:4],
        *("--backend", way, "--batch-size", batch, "--seconds", seconds),
        *("--out", str(setting.out / f"diff-{backend}")),
    ]


def noise(setting: Setting) -> list[str]:
    asked = ["--model", "deit_small_patch16_224", "--batch", "64", "--seconds", "1"]
    asked += ["--within", "18"]
    if setting.tried:
        asked = ["--model", SMALL, "--repeats", "1", "--seconds", "0.1"]
    return bench("noise", setting, *setting.cell, *asked, out="noise.json")


def run(setting: Setting) -> list[str]:
    # The demo's passes are short: below some hundreds of images the host sets the pace.
    asked = ["--batch-size", "512", "--minutes", "0.6"]
    if setting.tried:
        asked = ["--batch-size", "2", "--minutes", "0.05", "--images", "32,32,64"]
    return [
        *("-m", "tokensearch.cli", "run", *setting.cell, *asked, "--no-remember"),
        *("--out", str(setting.out / "run")),
    ]


def presets(setting: Setting) -> list[str]:
    asked = ["--batch", "64", "1", "8", "--seconds", "0.8", "--within", "29"]
    if setting.tried:
        asked = ["--model", SMALL, "--batch", "1", "--seconds", "0.1", "--presets", "none"]
    return bench("presets", setting, *setting.cell, *asked, out="presets.json")


FIRST = (
    Part(
        "probe",
        40,
        "what this machine is: kernels, stamps, clocks, ceilings",
        probe,
        lambda out: show_probe(out / "probe.json"),
    ),
    Part(
        "tests",
        50,
        "whether the answers are right on it",
        partial(marked, name="tests", mark="gpu and not compiles"),
        lambda out: show_tests(out / "tests.json"),
    ),
    Part(
        "kernels",
        30,
        "what each fused kernel takes, beside the small operations that it stands for",
        kernels,
        lambda out: show_kernels(out / "kernels.json"),
    ),
    Part(
        "overhead",
        80,
        "what reducing costs over free slicing, and over explicit attention",
        overhead,
        lambda out: show_comparisons(
            out / "overhead.json", ("case", "backend", "kernels", "batch")
        ),
    ),
    Part(
        "diff-eager",
        35,
        "whether the ledger of tome-r13 closes at batch 64, run as it is",
        partial(diff, backend="eager"),
        lambda out: show_ledger(out / "diff-eager"),
    ),
    Part(
        "diff-cudagraph",
        35,
        "and captured",
        partial(diff, backend="cudagraph"),
        lambda out: show_ledger(out / "diff-cudagraph"),
    ),
    Part(
        "noise",
        35,
        "how often a model is called faster than itself, and 2 % are found",
        noise,
        lambda out: show_noise(out / "noise.json"),
    ),
    Part(
        "run",
        110,
        "whether a search of the demo model meets half its latency",
        run,
        lambda out: show_run(out / "run"),
    ),
    Part(
        "presets",
        45,
        "what published schedules are worth on DeiT-S at batch 1, 8 and 64",
        presets,
        lambda out: show_comparisons(out / "presets.json", ("preset", "batch")),
    ),
    Part(
        "compile",
        80,
        "whether compiled models give the same answers",
        partial(marked, name="compile", mark="gpu and compiles"),
        lambda out: show_tests(out / "compile.json"),
    ),
)
