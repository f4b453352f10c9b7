"""The wheel holds all that is needed: it works far from the tree that it was built from."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs: the packages it needs are those of this process."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("there is no uv to build with")
    place = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [uv, "build", "--quiet", "--wheel", "--out-dir", place, ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    if "hatchling" in built.stderr:
        pytest.skip("no registry gives hatchling, which builds the wheel")
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(place.glob("*.whl"))) as wheel:
        wheel.extractall(place / "site")
    return place / "site"


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
