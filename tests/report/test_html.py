"""The page is read as a browser without scripts would: by its elements."""

import csv
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.report.fixtures import run_document, run_folder, trials
from tokensearch.front import Point, hypervolume
from tokensearch.policy import parse_target
from tokensearch.records.run_folder import RunFolder
from tokensearch.report.html.history import MOST_TRIALS, WORST, make_history, thin_out
from tokensearch.report.run.page import write_report
from tokensearch.report.run.sentences import target_sentence

HOSTILE = "=a</script><script>alert(1)</script>\x1b[31m{{7*7}}"
LARGEST = 1_500_000  # bytes


class Reader(HTMLParser):
    """Collects elements, words, and the cells of tables by id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self._rows: list[list[str]] = []
            self.tables[str(dict(attrs)["id"])] = self._rows
        elif tag == "tr":
            self._rows.append([])
        elif tag in {"td", "th"}:
            self._rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th"}:
            self._cell = False

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._cell:
            self._rows[-1][-1] += data


def page_of(folder: RunFolder) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def test_the_page_says_the_verdict_and_loads_nothing(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    page = page_of(folder)
    reader = Reader(page)

    assert target_sentence(run_document()) in reader.words
    assert len(page.encode()) < LARGEST
    assert not [attrs for _, attrs in reader.tags if "src" in attrs]
    assert not [tag for tag, _ in reader.tags if tag in {"link", "img", "iframe"}]


def test_every_table_is_a_csv_with_the_same_rows(tmp_path: Path) -> None:
    tables = Reader(page_of(run_folder(tmp_path))).tables
    files = {path.stem: path for path in (tmp_path / "report_data").glob("*.csv")}

    assert {f"table-{name}" for name in files} == tables.keys()
    for name, path in files.items():
        _, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
        _, *shown = tables[f"table-{name}"]
        assert rows == shown


def test_names_in_files_are_text_in_page_and_tables(tmp_path: Path) -> None:
    folder, document = run_folder(tmp_path, profiles=False), run_document()
    folder.write_run(
        replace(
            document,
            model=replace(document.model, name=HOSTILE),
            command=HOSTILE,
            result=replace(
                document.finished,
                cautions=(HOSTILE,),
                finalists=tuple(
                    replace(finalist, origin=HOSTILE) for finalist in document.finished.finalists
                ),
            ),
        )
    )
    page = page_of(folder)

    scripts = [tag for tag, _ in Reader(page).tags if tag == "script"]
    assert len(scripts) == 2  # the answers, and ours
    assert "\x1b" not in page
    finalists = (tmp_path / "report_data" / "finalists.csv").read_text(encoding="utf-8")
    assert "'=a</script>" in finalists


def test_the_answer_at_the_runs_own_target_is_what_the_front_answers(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, profiles=False)
    rows = Reader(page_of(folder)).tables["table-targets"]
    found = next(row for row in rows[1:] if row[0] <= "0.50x" <= row[1])

    assert parse_target(found[0]).relative
    assert found[2] == "found 99b913f5"


def test_a_long_search_is_thinned_evenly() -> None:
    many = trials() * 200
    kept = thin_out(many)

    assert MOST_TRIALS / 2 < len(kept) <= MOST_TRIALS


def test_without_a_target_the_history_is_the_hypervolume_of_all_trials_so_far() -> None:
    document, shown = run_document(), [one for one in trials() if one.state == "complete"]
    settings = replace(document.settings, target=None, max_drop=0.01)

    history = make_history(replace(document, settings=settings), trials())

    points = [Point(one.accuracy.share, one.ratio) for one in shown]
    assert [point.best for point in history.points] == pytest.approx(
        [hypervolume(points[: n + 1], reference=WORST) for n in range(len(points))], rel=1e-12
    )


def test_a_report_goes_where_it_is_asked_to(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", profiles=False)

    page = write_report(folder, tmp_path / "out")

    assert page == tmp_path / "out" / "report.html"
    assert (tmp_path / "out" / "report.md").exists()
    assert not folder.html.exists()
