"""Names in files are shown as text: no terminal, page or table does what they say."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.report import fixtures
from tests.report.fixtures import run_folder
from tests.report.profiles import profile
from tokensearch.cli.main import app
from tokensearch.policy import Policy, Prune, save, save_set
from tokensearch.policy.file import policy_to_json
from tokensearch.records.profile_file import profile_to_json

HOSTILE = "a\x1b[31mb\r\n\u202ec[red]x[/red]<script>d|e`f`$\\frac$](javascript:g)"


def called(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


def assert_is_text(shown: str) -> None:
    """Nothing in it moves a cursor, and new lines are only ours."""
    assert not [one for one in shown if not one.isprintable() and one != "\n"]


def spoiled(document: Any, names: frozenset[str]) -> Any:
    """A copy whose texts of these names are hostile."""
    if isinstance(document, dict):
        return {
            key: HOSTILE if key in names and isinstance(value, str) else spoiled(value, names)
            for key, value in document.items()
        }
    return [spoiled(one, names) for one in document] if isinstance(document, list) else document


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def hostile_policy() -> Policy:
    policy = fixtures.front().policies[0]
    evidence = policy.evidence[0]
    cell = spoiled(dict(evidence.cell), frozenset({"name", "device", "dtype", "backend"}))
    return replace(
        policy,
        model=replace(policy.model, name=HOSTILE),
        evidence=(replace(evidence, cell=cell),),
        provenance={HOSTILE: HOSTILE},
        extra={HOSTILE: HOSTILE},
    )


def test_show_spells_out_what_a_policy_holds(tmp_path: Path) -> None:
    save(hostile_policy(), tmp_path / "policy.json")

    result = called("show", str(tmp_path / "policy.json"))

    assert result.exit_code == 0
    assert r"a\x1b[31mb\r\n\u202ec[red]x[/red]<script>d|e" in result.stdout
    assert r"keeps but ignores: a\x1b[31mb" in result.stderr
    assert_is_text(result.stdout + result.stderr)


def test_diff_spells_out_what_profiles_hold(tmp_path: Path) -> None:
    for name, keep in (("before", 120), ("after", 60)):
        policy = Policy(replace(fixtures.SPEC, name=HOSTILE), (Prune(2, keep),))
        made = profile(policy, fixtures.host_ms(policy), name=HOSTILE, plain_ms=keep / 3)
        document = spoiled(
            json.loads(json.dumps(profile_to_json(made))),
            frozenset({"processor", "system", "driver", "governor", "torch"}),
        )
        (tmp_path / f"{name}.json").write_text(json.dumps(document))

    result = called("diff", str(tmp_path / "before.json"), str(tmp_path / "after.json"))

    assert result.exit_code == 0
    assert_is_text(result.stdout + result.stderr)


def test_a_report_is_a_page_whatever_its_run_holds(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    names = {"name", "origin", "command", "space", "sampler", "digest", "weights", "system"}
    rewrite(folder.run, lambda run: spoiled(run, frozenset(names - {"weights"})))
    rewrite(folder.run, lambda run: run["result"].update(cautions=[HOSTILE]) or run)
    for name in ("baseline", "answer"):
        path = folder.profiles / f"{name}.json"
        rewrite(path, lambda document: document | {"name": HOSTILE})

    result = called("report", str(tmp_path))

    page = folder.report.read_text()
    assert result.exit_code == 0
    assert_is_text(result.stdout + result.stderr)
    assert_is_text(page)
    outside_code = page.rpartition("## To repeat it")[0]
    assert "<script" not in outside_code
    assert "](javascript" not in outside_code
    assert r"[red]x[/red]&lt;script>d\|e" in outside_code
    assert not [path for path in tmp_path.glob("*.svg") if "<script" in path.read_text()]


@pytest.mark.parametrize(
    "verb", [("calibrate", "--model", "demo"), ("retarget", "--latency-target", "1x")]
)
def test_a_name_that_is_refused_is_spelled_out(tmp_path: Path, verb: tuple[str, ...]) -> None:
    folder = run_folder(tmp_path / "run", profiles=False)
    save_set(replace(fixtures.front(), policies=(hostile_policy(),)), folder.front)
    rewrite(folder.run, lambda run: spoiled(run, frozenset({"model", "name", "schedule_hash"})))
    subject = folder.front if verb[0] == "calibrate" else folder.path

    result = called(verb[0], str(subject), *verb[1:])

    assert result.exit_code == 1
    assert result.stderr.startswith("error: ") or "caution" in result.stderr
    assert_is_text(result.stdout + result.stderr)


@pytest.mark.long
def test_evaluate_spells_out_the_model_that_a_policy_was_made_for(tmp_path: Path) -> None:
    policy = replace(hostile_policy(), model=replace(fixtures.SPEC, name=HOSTILE, width=64))
    (tmp_path / "policy.json").write_text(json.dumps(policy_to_json(policy)))

    result = called("evaluate", str(tmp_path / "policy.json"), "--model", "demo")

    assert result.exit_code == 1
    assert_is_text(result.stdout + result.stderr)


def test_a_front_that_was_edited_is_said_to_contradict_its_run(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, profiles=False)

    def edit(front: Any) -> Any:
        front["policies"][0]["evidence"][0]["accuracy"]["top1"] = 0.999
        front["policies"][0]["evidence"][0]["latency"]["median_ms"] = 12.0
        return front

    rewrite(folder.front, edit)

    result = called("report", str(tmp_path))

    said = (
        "front.json contradicts run.json: found 99b913f5 has the top1 0.999 for 0.973; "
        "found 99b913f5 has the median_ms 12 for 19.2; it was edited or calibrated after the "
        "run, whose own figures are those of finalists"
    )
    assert result.exit_code == 0
    assert result.stderr == f"caution: {said}\n"
    assert f"- {said}\n" in folder.report.read_text()


def test_a_member_that_the_run_does_not_know_is_said(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, profiles=False)
    other = replace(fixtures.front().policies[0], steps=(Prune(3, 100),))
    save_set(replace(fixtures.front(), policies=(other,)), folder.front)

    result = called("report", str(tmp_path))

    assert "is no finalist; found 99b913f5 is missing" in result.stderr


def test_a_front_as_its_run_left_it_contradicts_nothing(tmp_path: Path) -> None:
    run_folder(tmp_path, profiles=False)

    assert called("report", str(tmp_path)).stderr == ""
