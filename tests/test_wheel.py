"""The wheel holds all that is needed: it works far from the tree that it was built from."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs: the packages it needs are those of this process."""
    uv = find_uv()
    place = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(build(uv, ROOT, place, "--wheel")) as wheel:
        wheel.extractall(place / "site")
    return place / "site"


def find_uv() -> str:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("there is no uv to build with")
    return uv


def build(uv: str, source: Path, place: Path, kind: str) -> Path:
    """Build a wheel or an sdist, and return its file."""
    built = subprocess.run(
        [uv, "build", "--quiet", kind, "--out-dir", place, source],
        capture_output=True,
        text=True,
        check=False,
    )
    if "hatchling" in built.stderr:
        pytest.skip("no registry gives hatchling, which builds the wheel")
    assert built.returncode == 0, built.stderr
    return next(place.glob("*.whl" if kind == "--wheel" else "*.tar.gz"))


def run(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tokensearch.cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_types_spaces_schemas_templates_and_weights_are_inside(installed: Path) -> None:
    package = installed / "tokensearch"

    assert (package / "py.typed").exists()
    for inside in (
        "policy/policy-v1.schema.json",
        "records/run-v1.schema.json",
        "report/html/report.html.j2",
        "report/html/table.html.j2",
        "report/html/runs.html.j2",
        "report/html/report.css",
        "demo/demo.safetensors",
        "data/photographs/chelsea.jpg",
        "search_spaces/default.toml",
    ):
        assert (package / inside).is_file(), inside
    assert not (installed / "tests").exists()


def test_show_and_evaluate_work_outside_the_tree(installed: Path, tmp_path: Path) -> None:
    imported = subprocess.run(
        [sys.executable, "-c", "import tokensearch; print(tokensearch.__file__)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert imported.stdout.startswith(str(installed))

    shown = run(installed, tmp_path, "show", "tome-r13")
    measured = run(
        installed, tmp_path, *("evaluate", "tome-r13", "--images", "20,20,20", "--batch-size", "1")
    )

    assert (shown.returncode, "pool to 183" in shown.stdout) == (0, True), shown.stderr
    assert measured.returncode == 0, measured.stderr
    assert "accuracy" in measured.stdout


def test_the_sdist_builds_a_wheel_of_the_same_files(installed: Path, tmp_path: Path) -> None:
    uv = find_uv()
    sdist = build(uv, ROOT, tmp_path, "--sdist")
    with tarfile.open(sdist) as packed:
        packed.extractall(tmp_path / "source", filter="data")

    wheel = build(uv, next((tmp_path / "source").iterdir()), tmp_path, "--wheel")

    with zipfile.ZipFile(wheel) as built:
        names = {name for name in built.namelist() if not name.endswith("RECORD")}
        differing = [name for name in names if built.read(name) != (installed / name).read_bytes()]
    assert differing == []
    files = (
        path for path in installed.rglob("*") if path.is_file() and "__pycache__" not in str(path)
    )
    assert names == {
        path.relative_to(installed).as_posix() for path in files if path.name != "RECORD"
    }


def test_the_runtime_of_the_wheel_needs_torch_alone(installed: Path, tmp_path: Path) -> None:
    """What `pip install --no-deps` leaves beside torch: nothing else may be asked for."""
    alone = """
import sys
for name in ("timm", "optuna", "rich", "typer", "sklearn", "scipy", "matplotlib", "jinja2",
             "torchvision", "safetensors", "PIL"):
    sys.modules[name] = None  # an import of it fails
import tokensearch
print(tokensearch.apply, tokensearch.load_set)
"""
    done = subprocess.run(
        [sys.executable, "-c", alone],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
