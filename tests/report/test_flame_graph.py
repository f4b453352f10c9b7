from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.report.ledgers import (
    baseline,
    candidate,
    in_every_block,
    of_known_terms,
    operator,
)
from tokensearch.diff.ledger import Ledger, make_ledger
from tokensearch.errors import RunError
from tokensearch.report.diff.flame_graph import INSIDE_NOISE, NEW, draw_flame, flame
from tokensearch.report.diff.frames import Frame, removed, tree

SVG = "{http://www.w3.org/2000/svg}"


def with_operators() -> Ledger:
    """Attention runs another operator, which takes half of it; the rest is a copy."""
    before = in_every_block("attention", "flash", 3.0) + in_every_block("attention", "copy", 1.0)
    after = in_every_block("attention", "math", 2.0) + in_every_block("attention", "copy", 2.0)
    return make_ledger(baseline(operators=tuple(before)), candidate(operators=tuple(after)))


def child(frame: Frame, *names: str) -> Frame:
    for name in names:
        frame = next(one for one in frame.children if one.name == name)
    return frame


def colours(drawn: str) -> dict[str, str]:
    """Fill by the first line of the tooltip."""
    root = ElementTree.fromstring(drawn)
    found = {}
    for group in root.iter(f"{SVG}g"):
        title, box = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None
        assert title.text is not None
        assert box is not None
        found[title.text.partition(":")[0]] = box.attrib["fill"]
    return found


def test_blocks_add_up_to_the_pass_and_phases_to_their_block() -> None:
    whole = tree(of_known_terms())

    assert sum(one.candidate_ms for one in whole.children) == pytest.approx(whole.candidate_ms)
    assert child(whole, "block 1").candidate_ms == pytest.approx(1.0 + 2.0 + 1.5 + 0.4 + 0.6)


def test_operators_are_scaled_to_their_phase() -> None:
    attention = child(tree(with_operators()), "block 2", "attention")

    assert (attention.baseline_ms, attention.candidate_ms) == pytest.approx((2.0, 1.25))
    assert child(attention, "flash").baseline_ms == pytest.approx(1.5)
    assert child(attention, "math").candidate_ms == pytest.approx(0.625)


def test_the_largest_change_comes_first() -> None:
    whole = tree(of_known_terms())

    assert [one.name for one in whole.children][:3] == ["block 2", "block 3", "block 1"]


def test_what_is_gone_is_summed_over_blocks_and_shown() -> None:
    found = with_operators()

    gone = removed(tree(found))

    assert gone == {"attention > flash": (pytest.approx(6.0), 4)}
    assert "<title>attention &gt; flash: 6.00 ms in 4 places, gone</title>" in flame(found)


def test_new_frames_are_purple_and_those_inside_the_noise_grey() -> None:
    fills = colours(flame(of_known_terms()))

    assert fills["halved > block 1 > merging"] == "#" + bytes(NEW).hex()
    assert fills["halved > block 0 > MLP"] == "#" + bytes(INSIDE_NOISE).hex()
    assert fills["halved > block 3 > MLP"] not in {fills["halved"], "#ffffff"}


def test_faster_is_blue_and_slower_is_red() -> None:
    def mostly(fill: str) -> str:
        red, _, blue = bytes.fromhex(fill[1:])
        return "blue" if blue > red else "red"

    fills = colours(flame(of_known_terms()))
    slower = colours(
        flame(make_ledger(candidate(policy=baseline().policy), baseline(name="halved")))
    )

    assert mostly(fills["halved > block 2 > MLP"]) == "blue"
    assert mostly(slower["halved > block 2 > MLP"]) == "red"


def test_widths_are_those_of_the_candidate_on_the_scale_of_the_baseline() -> None:
    root = ElementTree.fromstring(flame(of_known_terms()))

    whole = next(root.iter(f"{SVG}g")).find(f"{SVG}rect")

    assert whole is not None
    assert whole.attrib["width"] == f"{1200 * 20.3 / 26:.1f}"


def test_names_are_no_markup() -> None:
    kernel = operator((0, "mlp"), "void gemm<float, 128>(a & b)", 3.0, kernel=True)
    found = make_ledger(baseline(operators=(kernel,)), candidate(operators=(kernel,)))

    titles = [one.text for one in ElementTree.fromstring(flame(found)).iter(f"{SVG}title")]

    assert any("void gemm<float, 128>(a & b)" in (title or "") for title in titles)


def test_it_is_one_small_file_without_scripts_that_never_changes(tmp_path: Path) -> None:
    path = tmp_path / "flame.svg"
    draw_flame(with_operators(), path)
    first = path.read_bytes()
    draw_flame(with_operators(), path)

    assert path.read_bytes() == first
    assert len(first) < 50_000
    assert b"script" not in first
    assert b"href" not in first


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "flame.svg"

    with pytest.raises(RunError) as caught:
        draw_flame(of_known_terms(), path)

    assert str(caught.value) == f"{path} cannot be written: No such file or directory"
