"""The documents keep their word: their commands and their code are run."""

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import tokensearch
from tests.report.fixtures import ENTRIES, run_folder, trials
from tokensearch import errors
from tokensearch.cli.inputs import DEMO_SPEC
from tokensearch.cli.main import VERBS, app
from tokensearch.measure import TimingBudget
from tokensearch.policy import Evidence, ModelSpec, Policy, PolicySet, Pool, Prune, save, save_set
from tokensearch.policy.file import policy_to_json
from tokensearch.search.latency_model import make_forecast

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))}
CODE = [
    (name, code) for name in PAGES for code in re.findall(r"```python\n(.*?)```", PAGES[name], re.S)
]


def commands() -> Iterator[str]:
    """Every `tokensearch ...` line that a page shows as a command, without its description."""
    for page in PAGES.values():
        for line in page.splitlines():
            if line.startswith("    tokensearch "):
                yield re.split(r"\s{3,}", line.strip())[0]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages name."""
    model = ModelSpec("vit_tiny_patch16_224", 12, 196, 1, 192)
    policy = Policy(model, (Prune(3, 96), Pool(6, 60)), last_block="prefix_only")
    evidence = Evidence(
        cell={"batch": 8},
        latency={"median_ms": 3.0},
        accuracy={"top1": 0.9, "low": 0.88, "high": 0.92},
        baseline={"median_ms": 6.0},
        confirmed=True,
        extra={
            "select": {"top1": 0.9, "kl": 0.01, "images": 8},
            "choice": {"right": "7f", "kl_low": 0.0, "kl_high": 0.02},
            "comparison": {"ratio": 0.5, "low": 0.49, "high": 0.51, "low_ms": 2.9, "high_ms": 3.1},
        },
    )
    run = tmp_path / "runs" / "demo-cpu-0.5x"
    run.mkdir(parents=True)
    for folder, own in ((tmp_path, policy), (run, replace(policy, model=DEMO_SPEC))):
        save(own.with_evidence(evidence), folder / "policy.json")
        save_set(PolicySet((own.with_evidence(evidence),)), folder / "front.json")
    cat = Path(tokensearch.__file__).parent / "data" / "photographs" / "chelsea.jpg"
    (tmp_path / "cat.jpg").write_bytes(cat.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What is added so that a command takes seconds, its exit code, and what it says. Published weights
# and a user's files cannot be had here; that they are asked for is what those commands show.
SMALL = [
    "--model",
    "test_vit",
    "--model-kwargs",
    "depth=12",
    "--img-size",
    "224",
]  # of DeiT's tokens
TIMED = 4  # too close to call by so few passes; or 0 or 3, as this machine's clock has it
QUICK: dict[str, tuple[list[str], int, str]] = {
    "tokensearch run --model deit_s --latency-target 5ms": (
        ["--checkpoint", "none.pth"],
        1,
        "error: checkpoint none.pth does not exist",
    ),
    "tokensearch run --model deit_s --checkpoint deit_s.safetensors --data DIR "
    "--latency-target 0.7x": ([], 1, "error: checkpoint deit_s.safetensors does not exist"),
    "tokensearch run --model deit_s --checkpoint deit_s.safetensors --data DIR --max-drop 0.5": (
        [],
        1,
        "error: checkpoint deit_s.safetensors does not exist",
    ),
    "tokensearch retarget runs/demo-cpu-0.5x --latency-target 0.3x": (
        ["--device", "cpu", "--batch-size", "1"],
        TIMED,
        "report  runs/demo-cpu-0.5x-retargeted/cpu-eager-batch1-0.3x/report.md",
    ),
    "tokensearch run --storage postgresql+psycopg://me@db/studies --study demo --workers 4": (
        ["--storage", "sqlite:///studies.db"],
        1,
        "cannot be shared by processes",
    ),
    "tokensearch worker --storage postgresql+psycopg://me@db/studies --study demo "
    "--role accuracy": (["--storage", "sqlite:///studies.db"], 1, "cannot be shared by processes"),
    "tokensearch report runs/demo --storage postgresql+psycopg://me@db/studies --study demo": (
        ["--storage", "sqlite:///studies.db"],
        1,
        "cannot be shared by processes",
    ),
    "tokensearch calibrate runs/demo-cpu-0.5x/front.json": (
        ["--device", "cpu", "--batch-size", "1", "--seconds", "1"],
        TIMED,
        "front  runs/demo-cpu-0.5x/front-here.json",
    ),
    "tokensearch evaluate tome-r13 --model hf:facebook/dinov2-small": (
        ["--model", "hf:dinov2", "--rescale", "--images", "20,20,20", "--batch-size", "1"],
        0,
        "images: crops of ",
    ),
    "tokensearch evaluate tome-r13": (["--images", "20,20,20", "--batch-size", "1"], 0, "ratio"),
    "tokensearch profile --model deit_s --preset tome-r13 --out profiles/tome-r13": (
        [*SMALL, "--batch-size", "1", "--seconds", "1"],
        0,
        "of the ceiling",
    ),
    "tokensearch diff none tome-r13 --model deit_s --out diffs/tome-r13": (
        [*SMALL, "--batch-size", "1", "--seconds", "1"],
        0,
        "ledger.json",
    ),
    "tokensearch profile --model deit_s --sweep --out costs/deit_s": (
        ["--model", "test_vit", "--batch-size", "1", "--seconds", "1"],
        0,
        "costs.json",
    ),
    "tokensearch show policy.json": ([], 0, "prune to 96"),
    "tokensearch show runs/demo-cpu-0.5x/policy.json": ([], 0, "prune to 96"),
    "tokensearch show ppt-r50 --image cat.jpg --beside topk-0.5 --out patches.png": (
        [],
        0,
        "picture  patches.png",
    ),
    "tokensearch presets --model deit_s": ([], 0, "tome-r13"),
    "tokensearch report runs/demo-cpu-0.5x": ([], 0, "report.md"),
    "tokensearch report runs/batch-1 runs/batch-8 --out report-of-both": (
        [],
        0,
        "page    report-of-both/report.html",
    ),
    "tokensearch tune thresholds --sites 2,5,8 --budget 0.6x": (
        ["--images", "8,8,8", "--batch-size", "4"],
        0,
        "thresholds",
    ),
    "tokensearch tune thresholds --sites 2,5,8 --budget 0.6x --steps 40": (
        ["--images", "8,8,8", "--batch-size", "4", "--steps", "1", "--train-batch", "2"],
        0,
        "learned",
    ),
    # Which of the two is better after a step is anybody's guess.
    "tokensearch tune rates --budget 0.5x --lr 0.05 --steps 100": (
        ["--images", "8,8,8", "--budget", "0.001x"],
        3,
        "out of reach",
    ),
    "tokensearch tune rates --budget 0.6x": (
        ["--images", "8,8,8", "--budget", "0.001x"],
        3,
        "out of reach",
    ),
    "tokensearch tune merger --block 0 --keep 8": (
        [
            *("--images", "8,8,8", "--batch-size", "4"),
            *("--steps", "1", "--train-batch", "2", "--lr", "0"),
        ],
        4,
        "kept as it began",
    ),
    "tokensearch tune weights --policy topk-0.5": (
        [
            *("--images", "8,8,8", "--batch-size", "4"),
            *("--steps", "1", "--train-batch", "2", "--lr", "0"),
        ],
        4,
        "no better on search",
    ),
    "tokensearch export tome-r13": (["--format", "pt2"], 0, "max abs difference"),
    "tokensearch doctor": ([], 0, "torch"),
    "tokensearch doctor --models": (["--names", "*_tiny*"], 0, "VisionTransformer"),
}


def finished_run(path: Path, patch: pytest.MonkeyPatch) -> None:
    """A run folder whose finalists were trials, and timings of it that take seconds."""
    folder = run_folder(path)
    for entry, trial in zip(ENTRIES, trials(), strict=False):
        same = {"schedule_hash": entry.policy.schedule_hash, "origin": entry.origin}
        folder.append_trial(replace(trial, **same, policy=policy_to_json(entry.policy)))
    short = TimingBudget(warmup=1, max_rounds=12, seconds=0.2)
    for module in ("retime.retarget", "search.finalists.side_by_side"):
        patch.setattr(f"tokensearch.{module}.make_confirm_budget", lambda *_: short)
    quick = partial(make_forecast, seconds=1.0)
    patch.setattr("tokensearch.retime.retarget.make_forecast", quick)


def test_every_command_of_the_pages_is_run_here() -> None:
    assert set(commands()) == set(QUICK)


# Each a few seconds: they compile, sweep or measure what a machine can do.
LONG = (
    "evaluate tome-r13 --model hf",
    "export",
    "diff",
    "retarget",
    "profile --model deit_s --preset",
    "doctor",
)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            command,
            marks=[pytest.mark.long]
            if command.removeprefix("tokensearch ").startswith(LONG)
            else [],
        )
        for command in QUICK
    ],
)
def test_a_command_of_a_page_does_what_it_says(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if command.endswith("runs/demo-cpu-0.5x") or " runs/demo-cpu-0.5x " in command:
        shutil.rmtree(place / "runs")
        finished_run(place / "runs" / "demo-cpu-0.5x", monkeypatch)
    if "runs/batch-1" in command:
        for name in ("batch-1", "batch-8"):
            run_folder(place / "runs" / name, profiles=False)
    if "hf:" in command:
        pytest.importorskip("transformers")
        from tests.hugging_face import save as save_model

        save_model("Dinov2Model", place / "dinov2")
    added, code, said = QUICK[command]

    result = CliRunner().invoke(app, [*shlex.split(command)[1:], *added])

    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code == code or (code == TIMED and result.exit_code in (0, 3)), result.stderr
    assert said in result.output


@pytest.mark.parametrize(("page", "code"), CODE)
def test_code_of_a_page_runs(page: str, code: str, place: Path) -> None:
    import timm

    names = {"tokensearch": tokensearch, "torch": torch}
    names["model"] = timm.create_model("vit_tiny_patch16_224").eval()
    exec(compile(code, page, "exec"), names)

    assert "model" in names


def test_every_page_is_linked_from_the_readme_and_every_link_leads_somewhere() -> None:
    for name in PAGES.keys() - {"README.md"}:
        assert f"(docs/{name})" in README
    for name, page in PAGES.items():
        folder = ROOT if name == "README.md" else ROOT / "docs"
        for link in re.findall(r"\]\(([^)#]+)\)", page):
            assert (folder / link).exists(), link


def test_every_message_under_troubleshooting_is_one_that_is_said() -> None:
    files = sorted((ROOT / "tokensearch").rglob("*.py"))
    said = re.sub(r'"\s*f?"', "", " ".join(path.read_text() for path in files))
    shown = re.findall(r"^\| `([^`]+)`", PAGES["troubleshooting.md"], re.M)

    assert len(shown) > 5
    for message in shown:
        pattern = ".{1,80}?".join(map(re.escape, message.split("...")))
        assert re.search(pattern, said), message


def test_a_file_that_the_architecture_names_exists() -> None:
    named = re.findall(r"\b([a-z_]+/(?:[a-z_]+/)*[a-z_]+\.py)", PAGES["architecture.md"])

    assert len(named) > 10
    assert [name for name in named if not (ROOT / "tokensearch" / name).is_file()] == []


def test_every_room_is_on_the_map() -> None:
    said = (ROOT / "CONTRIBUTING.md").read_text()
    on_map = {
        name
        for line in re.findall(r"^    ([a-z_, ]+?)(?:\s{3,}|$)", said, re.M)
        for name in line.split(", ")
    }
    there = (p for p in (ROOT / "tokensearch").iterdir() if p.is_dir() or p.suffix == ".py")
    rooms = {p.stem for p in there if not p.name.startswith("__")}

    assert on_map == rooms


def test_what_the_commands_of_the_pages_leave_behind_is_ignored_by_git() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("the sources are not a checkout")
    given = [
        Path(name).parts[0] for line in commands() for name in re.findall(r"--out (\S+)", line)
    ]
    usual = ["thresholds.json", "thresholds-training/x", "rates.json", "merger.json", "demo.onnx"]
    left = [*(f"{name}/x" if not Path(name).suffix else name for name in given), *usual]

    listed = subprocess.run(
        ["git", "check-ignore", "--no-index", *left], cwd=ROOT, capture_output=True, text=True
    )

    assert len(given) > 4
    assert listed.stdout.split() == left


def test_every_verb_is_in_the_readme() -> None:
    for verb in VERBS:
        assert f"tokensearch {verb.__name__}" in README


def test_every_error_is_in_the_house_rules() -> None:
    known = {name for name, kind in vars(errors).items() if isinstance(kind, type)}

    said = (ROOT / "CONTRIBUTING.md").read_text()
    assert {name for name in known if f"`{name}`" in said} == known
    assert {name for name in known if name in (errors.__doc__ or "")} == known


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = [item for group in project["optional-dependencies"].values() for item in group]
    names = [re.split("[>=<]", item)[0] for item in [*project["dependencies"], *optional]]
    decisions = (ROOT / "DECISIONS.md").read_text().replace("_", "-")

    assert [name for name in names if f"| {name} |" not in decisions] == []
