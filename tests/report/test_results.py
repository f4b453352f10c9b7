"""results.csv has timm's columns and this run's figures."""

import csv
from pathlib import Path

from tests.report.fixtures import run_folder
from tokensearch.report.run.page import write_report


def rows_of(path: Path) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_finalists_stand_in_the_columns_of_timms_scripts(tmp_path: Path) -> None:
    write_report(run_folder(tmp_path, profiles=False))

    rows = {row["model"]: row for row in rows_of(tmp_path / "results.csv")}

    baseline, answer = rows["demo"], rows["demo+found-99b913f5"]
    assert {"infer_samples_per_sec", "infer_step_time", "top1", "top1_err"} <= baseline.keys()
    assert (baseline["infer_step_time"], baseline["infer_samples_per_sec"]) == ("40.000", "200.00")
    assert (answer["top1"], answer["top1_err"]) == ("97.3000", "2.7000")
    assert (answer["of_baseline"], answer["answer"]) == ("0.4800", "yes")
    assert answer["infer_img_size"] == answer["img_size"] == "224"


def test_without_labels_top1_is_left_empty(tmp_path: Path) -> None:
    write_report(run_folder(tmp_path, labelled=False, profiles=False))

    assert {row["top1"] for row in rows_of(tmp_path / "results.csv")} == {""}
