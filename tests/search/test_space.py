from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tokensearch.errors import SpaceError
from tokensearch.policy import PRESETS, ModelSpec, Policy, Pool, Prune, mac_share, preset
from tokensearch.search import SearchSpace, load_space
from tokensearch.search.controls import fixed_controls

DEIT = ModelSpec("deit", blocks=12, patch_tokens=196, prefix_tokens=1, width=192)
MODELS = [DEIT, ModelSpec("odd", 7, 49, 2, 8), ModelSpec("l", 24, 576, 1, 8)]
FILES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.toml"))
DEFAULT = next(path for path in FILES if path.stem == "default").read_text()

every_shipped = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)


class Dice:
    """Draws every parameter at random, as Optuna's random sampler does."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.drawn: dict[str, object] = {}

    def suggest_categorical(self, name: str, choices: object) -> object:
        assert isinstance(choices, tuple)
        self.drawn[name] = self.random.choice(choices)
        return self.drawn[name]

    def suggest_int(self, name: str, low: int, high: int) -> int:
        drawn = self.random.choice(range(low, high + 1))
        self.drawn[name] = drawn
        return drawn


def written(folder: Path, text: str) -> SearchSpace:
    (folder / "space.toml").write_text(text)
    return load_space(folder / "space.toml")


def changed(folder: Path, name: str, *edits: tuple[str, str]) -> SearchSpace:
    """A shipped space with other text in some places."""
    text = next(path for path in FILES if path.stem == name).read_text()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return written(folder, text)


def spelled(space: SearchSpace, model: ModelSpec = DEIT, **chosen: object) -> Policy:
    """The schedule of the first choice everywhere, except where something is chosen."""
    named = {name.replace("_", ".", 1) if "_" in name else name: v for name, v in chosen.items()}
    firsts = {name: values[0] for name, values in space.dimensions(model).items()}
    return space.build({**firsts, **named}, model)


def test_there_are_spaces_for_every_kind_of_search() -> None:
    assert {path.stem for path in FILES} == {
        "default", "dense", "diffrate_like", "exhaustive_small", "few_sites", "per_block",
        "pool_only", "ppt", "prune_only",
    }  # fmt: skip
    assert all(load_space(path).name == path.stem for path in FILES)


@every_shipped
@every_model
def test_every_draw_of_every_shipped_space_is_a_policy(path: Path, model: ModelSpec) -> None:
    space = load_space(path)

    drawn = {space.suggest(Dice(seed), model).schedule_hash for seed in range(100)}

    assert len(drawn) >= min(50, space.size(model) / 4)


@every_shipped
@every_model
def test_every_schedule_of_a_space_is_its_own_nearest(path: Path, model: ModelSpec) -> None:
    space = load_space(path)

    for seed in range(40):
        policy = space.suggest(Dice(seed), model)
        assert space.build(space.nearest(policy, model), model) == policy


@every_shipped
def test_dimensions_are_choices_that_every_draw_makes_in_order(path: Path) -> None:
    space, dice = load_space(path), Dice(0)
    dimensions = space.dimensions(DEIT)

    space.suggest(dice, DEIT)

    assert list(dice.drawn) == list(dimensions) == list(space.nearest(Policy(DEIT), DEIT))
    for values in dimensions.values():
        assert len({*values}) == len(values) > 1
        if not isinstance(values[0], str | bool):
            assert list(values) == sorted(values)


@every_shipped
def test_every_published_schedule_has_a_nearest(path: Path) -> None:
    space = load_space(path)
    dimensions = space.dimensions(DEIT)

    for name, published_one in PRESETS.items():
        if published_one.made_for(DEIT):
            found = space.nearest(preset(name, DEIT), DEIT)
            assert all(found[name] in values for name, values in dimensions.items()), name


@pytest.mark.parametrize("space", ["default", "per_block", "diffrate_like"])
@pytest.mark.parametrize("name", ["tome-r13", "ppt-r50", "topk-0.7", "evit-0.7", "diffrate-s-2.3"])
def test_the_nearest_of_a_published_schedule_does_about_as_much_work(space: str, name: str) -> None:
    chosen, wanted = load_space(space), preset(name, DEIT)

    found = chosen.build(chosen.nearest(wanted, DEIT), DEIT)

    assert mac_share(found) == pytest.approx(mac_share(wanted), abs=0.06)


def test_the_nearest_keeps_sites_operators_and_options() -> None:
    space = load_space("default")
    wanted = Policy(
        DEIT,
        (Pool(2, 120, "ranked", "class_attention_value"), Prune(6, 50, rest="mean")),
        last_block="prefix_only",
    )

    found = space.build(space.nearest(wanted, DEIT), DEIT)

    score = "class_attention_value"
    assert found == replace(
        wanted, steps=(Pool(2, 116, "ranked", score), Prune(6, 48, score, rest="mean"))
    )


def test_the_nearest_of_what_is_not_allowed_is_what_is() -> None:
    wanted = Policy(DEIT, (Prune(4, 100, "random", "mean"), Pool(11, 60, "kmeans")))

    pooled, pruned = load_space("dense"), load_space("prune_only")

    assert pooled.build(pooled.nearest(wanted, DEIT), DEIT).steps == (Pool(4, 100), Pool(10, 80))
    assert pruned.build(pruned.nearest(wanted, DEIT), DEIT).steps == (
        Prune(4, 96, rest="mean"),
        Prune(10, 60, rest="mean"),
    )


def test_the_nearest_of_a_schedule_for_another_geometry_goes_by_ratio() -> None:
    space = load_space("default")
    wanted = Policy(ModelSpec("l", 24, 576, 1, 8), (Prune(8, 288), Prune(16, 173)))

    found = space.build(space.nearest(wanted, DEIT), DEIT)

    assert found.steps == (Prune(4, 96), Prune(8, 60))


def test_many_steps_are_joined_into_few_at_equal_work() -> None:
    space = load_space("few_sites")

    found = space.build(space.nearest(preset("tome-r8", DEIT), DEIT), DEIT)

    assert len(found.steps) == 2
    assert mac_share(found) == pytest.approx(mac_share(preset("tome-r8", DEIT)), abs=0.05)


def test_an_empty_slot_is_one_move_away_from_another_schedule() -> None:
    space = load_space("default")
    policy = Policy(DEIT, (Prune(3, 96),), last_block="prefix_only")
    found = space.nearest(policy, DEIT)

    moved = space.build({**found, "site.4": 9}, DEIT)

    assert found["site.4"] == 12
    assert [step.block for step in moved.steps] == [3, 9]


def test_default_sites_lie_before_the_last_block() -> None:
    assert load_space("default").blocks(DEIT) == tuple(range(11))


def test_sites_are_sorted_and_count_all_tokens() -> None:
    policy = spelled(
        load_space("default"),
        site_1=7, op_1="pool", left_1=0.3,
        site_2=3, op_2="prune", left_2=0.5,
        site_3=12, site_4=12,
    )  # fmt: skip

    assert policy.steps == (Prune(3, 96), Pool(7, 60))


def test_a_site_that_asks_for_more_than_is_left_does_nothing() -> None:
    space = load_space("default")
    sites = {"site_1": 1, "site_2": 4, "site_3": 8, "site_4": 12}

    policy = spelled(space, left_1=0.5, left_2=0.6, left_3=0.3, **sites)
    without = spelled(space, left_1=0.5, left_3=0.3, **{**sites, "site_2": 12})

    assert policy == without
    assert policy.steps == (Prune(1, 96), Prune(8, 60))


def test_of_two_slots_in_one_block_the_first_has_it() -> None:
    policy = spelled(
        load_space("default"),
        site_1=4, left_1=0.5, site_2=4, left_2=0.25, site_3=12, site_4=12,
    )  # fmt: skip

    assert policy.steps == (Prune(4, 96),)


def test_a_pool_that_cannot_merge_so_many_merges_what_it_can() -> None:
    policy = spelled(
        load_space("default"),
        site_1=1, op_1="pool", left_1=0.1, site_2=5, op_2="pool", left_2=0.1, site_3=12, site_4=12,
    )  # fmt: skip

    assert policy.steps == (Pool(1, 100), Pool(5, 52))  # multiples of 4, from 98 and 50 up


def test_a_block_leaves_its_share_of_what_reaches_it() -> None:
    space = load_space("ppt")

    policy = spelled(space, op_3="prune", left_3=0.5, op_6="pool", left_6=0.66, left_9=0.2)

    score = "class_attention_value"
    assert policy.steps == (Prune(3, 98, score), Pool(6, 64))


def test_a_block_may_prune_and_then_pool() -> None:
    space = load_space("diffrate_like")

    policy = spelled(space, op_4="prune_pool", left_4=0.8, pooled_4=0.5)

    assert policy.steps == (Prune(4, 156), Pool(4, 78, "ranked"))


def test_a_prune_before_a_pool_drops_whatever_the_others_do(tmp_path: Path) -> None:
    space = changed(tmp_path, "diffrate_like", ('rest = ["drop"]', 'rest = ["mean", "fuse"]'))

    policy = spelled(
        space, op_1="prune", left_1=0.8, op_4="prune_pool", left_4=0.8, pooled_4=0.5, rest="mean"
    )

    assert [step.rest for step in policy.steps if isinstance(step, Prune)] == ["mean", "drop"]
    assert space.build(space.nearest(policy, DEIT), DEIT) == policy


def test_random_scores_are_no_weights_to_fuse_by(tmp_path: Path) -> None:
    space = changed(
        tmp_path, "exhaustive_small",
        ('score = ["class_attention"]', 'score = ["random", "class_attention"]'),
        ('rest = ["drop"]', 'rest = ["mean", "fuse"]'),
    )  # fmt: skip

    rests = {spelled(space, score="random", rest=rest, site_1=1).steps[0].rest
             for rest in ("mean", "fuse")}  # fmt: skip

    assert rests == {"mean", "drop"}
    for policy in space.every(DEIT):
        assert space.build(space.nearest(policy, DEIT), DEIT) == policy


def test_lists_of_one_value_are_no_dimensions() -> None:
    names = {name.split(".")[0] for name in load_space("exhaustive_small").dimensions(DEIT)}

    assert names == {"site", "op", "left"}


def test_what_no_operator_goes_by_is_no_dimension(tmp_path: Path) -> None:
    space = changed(
        tmp_path, "prune_only", ('match = ["bipartite"]', 'match = ["kmeans", "ranked"]')
    )

    assert "match" not in space.dimensions(DEIT)


def test_a_small_space_can_be_tried_out_whole() -> None:
    space = load_space("exhaustive_small")

    found = list(space.every(DEIT))

    assert 200 < len(found) == len({policy.schedule_hash for policy in found}) < 300
    assert Policy(DEIT, last_block="prefix_only", proportional_attention=True) in found
    assert len(found) == pytest.approx(space.size(DEIT), rel=0.05)


def test_a_size_counts_what_differs_in_what_it_asks() -> None:
    # per block nothing, or one of two operators with 9 shares, at 3 blocks; 2 kinds of last block
    assert load_space("ppt").size(DEIT) == (1 + 2 * 9) ** 3 * 2


def test_a_size_counts_options_where_they_matter(tmp_path: Path) -> None:
    text = next(path for path in FILES if path.stem == "exhaustive_small").read_text()
    one_site = text.replace("slots = 2", "slots = 1").replace("[true]", "[true, false]")
    space = written(tmp_path, one_site.replace("0.45, 0.6, 0.75, 0.9]", "0.6, 0.7]"))

    # nothing at all; 4 blocks and 3 shares to prune; the same to pool, with and without sizes
    assert space.size(DEIT) == 1 + 4 * 3 + 4 * 3 * 2


def test_a_model_without_class_token_is_offered_what_asks_none() -> None:
    space = load_space("default").fitting(DEIT, scored=False, prefix_read=False)

    assert space.score == ("mean_attention",)
    assert space.last_block == ("full",)


def test_mean_attention_takes_the_place_of_scores_that_need_a_class_token(tmp_path: Path) -> None:
    space = changed(tmp_path, "dense", ('["mean_attention"]', '["class_attention", "random"]'))

    assert space.fitting(DEIT, scored=False, prefix_read=True).score == ("mean_attention", "random")
    assert space.fitting(DEIT, scored=True, prefix_read=True) == space


def test_published_schedules_come_with_a_random_control() -> None:
    names = [name for name, _ in fixed_controls(DEIT, scored=True, prefix_read=True)]

    assert names[0] == "none"
    assert {"last-cls", "tome-r13", "topk-0.7", "random-topk-0.7"} < {*names}


def test_published_schedules_leave_out_what_the_model_cannot_follow() -> None:
    names = [name for name, _ in fixed_controls(DEIT, scored=False, prefix_read=False)]

    assert not {"last-cls", "topk-0.7"} & {*names}


def test_an_unknown_space_is_refused_with_the_known() -> None:
    with pytest.raises(SpaceError, match=r"search space 'fast' is unknown; known are .*default"):
        load_space("fast")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("every = 1", "every = 0", "blocks.every is 0; it must be an integer from 1 to 1024"),
        ("first = 0 ", "first = 1979-05-27 ", "blocks.first is datetime.date(1979, 5, 27); "
         "it must be an integer from -1024 to 1024"),
        ("by = 4", "by = 0", "steps.by is 0; it must be an integer from 1 to 1048576"),
        ("by = 4", "by = true", "steps.by is True; it must be an integer from 1 to 1048576"),
        ("slots = 4", "slots = 0", "steps.slots is 0; it must be an integer from 1 to 1024"),
        ("slots = 4", "slots = 10_000_000", "steps.slots is 10000000; "
         "it must be an integer from 1 to 1024"),
        ("slots = 4", "sites = 4", "steps has the unknown field 'sites'"),
        ("slots = 4", "", "steps.slots is missing"),
        ("first = 0 ", "begin = 0 ", "blocks has the unknown field 'begin'"),
        ("0.04,", "1.05,", "steps.left[0] is 1.05; it must be a share above 0 and below 1"),
        ("0.04,", "nan,", "steps.left[0] is nan; it must be a share above 0 and below 1"),
        ('["prune", "pool"]', '["keep", "pool"]', "steps.ops[0] is 'keep'; "
         "it must be one of prune, pool"),
        ('score = ["class_attention", "class_attention_value"]', 'score = "random"',
         "steps.score is 'random'; it must be a list"),
        ('"fuse", "mean"', '"sum"', "steps.rest[1] is 'sum'; it must be one of drop, fuse, mean"),
        ('"fuse", "mean"', "[1]", "steps.rest[1] is [1]; it must be one of drop, fuse, mean"),
        ("[true, false]", "[1, 0]", "whole.proportional_attention[0] is 1; "
         "it must be true or false"),
        ("[true, false]", "[]", "whole.proportional_attention has 0 items; "
         "it must have from 1 to 1000"),
        ('"full"]', '"half"]', "whole.last_block[1] is 'half'; "
         "it must be one of full, prefix_only"),
        ('"sites"', '"tree"', "encoding is 'tree'; it must be one of per_block, sites"),
        ('"sites"', "[]", "encoding is []; it must be one of per_block, sites"),
        ('encoding = "sites"', "", "encoding is missing"),
        ('"sites"', '"per_block"', "steps has the unknown field 'slots'"),
        ('name = "default"', "", "name is missing"),
        ("[whole]", "[hole]", "the search space has the unknown field 'hole'"),
    ],
)  # fmt: skip
def test_a_space_that_says_nonsense_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in DEFAULT
    path = tmp_path / "space.toml"
    path.write_text(DEFAULT.replace(old, new))

    with pytest.raises(SpaceError) as raised:
        load_space(path)

    assert str(raised.value) == f"{message} (in {path})"


def test_lists_are_read_without_repeats_and_shares_ascending(tmp_path: Path) -> None:
    space = changed(
        tmp_path, "ppt",
        ("[0.2, 0.3, 0.4, 0.5, 0.58, 0.66, 0.74, 0.82, 0.9]", "[0.5, 0.2, 0.5]"),
        ('["full", "prefix_only"]', '["prefix_only", "prefix_only", "full"]'),
    )  # fmt: skip

    assert space.left == (0.2, 0.5)
    assert space.last_block == ("prefix_only", "full")


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="the search space is not TOML: Invalid value"):
        written(tmp_path, "name = ")


def test_a_space_without_an_allowed_block_is_refused() -> None:
    with pytest.raises(
        SpaceError, match="allows blocks 3 to 9, of which short with 2 blocks has none"
    ):
        load_space("ppt").blocks(ModelSpec("short", 2, 16, 1, 8))


def test_a_ranked_pool_goes_by_the_score_of_the_space(tmp_path: Path) -> None:
    space = changed(tmp_path, "default", ('["bipartite", "ranked"]', '["ranked"]'))

    fitting = space.fitting(DEIT, scored=False, prefix_read=True)

    drawn = [fitting.suggest(Dice(seed), DEIT) for seed in range(20)]
    assert {score for policy in drawn for score in policy.scores} == {"mean_attention"}


def test_a_grid_is_nothing_to_search(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"steps\.match\[0\] is 'grid'"):
        changed(tmp_path, "default", ('["bipartite", "ranked"]', '["grid"]'))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("name" + ".a" * 1500 + " = 1", "the search space nests deeper than 32 levels"),
        ("name = 0x" + "f" * 6000, "the search space holds a number that is too large"),
        ("name = '" + "a" * 20_000 + "'", "the file is larger than 16 KiB; a search space is not"),
    ],
)
def test_a_space_beyond_all_bounds_is_refused(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "own.toml").write_text(f'{name}\nencoding = "sites"\n')

    with pytest.raises(SpaceError) as raised:
        load_space(tmp_path / "own.toml")

    assert str(raised.value) == f"{sentence} (in {tmp_path / 'own.toml'})"
