import json
from pathlib import Path

from typer.testing import CliRunner

from tests.report.fixtures import run_folder
from tokensearch.cli.main import app


def test_a_report_is_drawn_again_and_its_path_printed(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, profiles=False)

    result = CliRunner().invoke(app, ["report", str(tmp_path)])

    assert result.exit_code == 0
    assert result.stdout.startswith("Target met: 0.5x for a pass of 8 images; the answer")
    assert result.stdout.endswith(f"\nreport  {folder.report}\n")
    assert folder.report.exists()


def test_a_folder_is_made_of_a_study_for_one_run_alone() -> None:
    words = ["report", "a", "b", "--study", "s", "--storage", "grpc://host"]
    result = CliRunner().invoke(app, words)

    assert result.exit_code == 2
    assert "--study makes one folder; give one RUN" in result.stderr


def test_json_names_the_report(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, profiles=False)

    result = CliRunner().invoke(app, ["report", str(tmp_path), "--json"])

    assert json.loads(result.stdout) == {
        "report": str(folder.report),
        "page": str(folder.html),
    }


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(tmp_path)])

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: {tmp_path} holds no run.json, so it is no run folder\n"
