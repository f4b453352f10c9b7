from pathlib import Path
from random import Random

import pytest

from tokensearch.errors import SpaceError
from tokensearch.policy import ModelSpec, Policy, Pool, Prune, mac_share
from tokensearch.search import load_space
from tokensearch.search.seeds import Fixed, ladders, published

DEIT = ModelSpec("deit", blocks=12, patch_tokens=196, prefix_tokens=1, width=192)
FILES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.toml"))
DEFAULT = next(path for path in FILES if path.stem == "default").read_text()


class Dice:
    """Draws every parameter at random, as Optuna's random sampler does."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def suggest_categorical(self, name: str, choices: object) -> object:
        assert isinstance(choices, tuple)
        return self.random.choice(choices)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    "model", [DEIT, ModelSpec("odd", 7, 49, 2, 8), ModelSpec("l", 24, 576, 1, 8)]
)
def test_every_draw_of_every_shipped_space_is_a_policy(path: Path, model: ModelSpec) -> None:
    space = load_space(path)

    drawn = {space.suggest(Dice(seed), model).schedule_hash for seed in range(200)}

    assert len(drawn) > 100


def test_default_sites_lie_inside_the_model() -> None:
    assert load_space("default").blocks(DEIT) == (1, 3, 5, 7, 9)


def test_a_space_means_what_its_parameters_say() -> None:
    chosen = {"proportional_attention": True, "last_block": "full"}
    for block in (1, 3, 5, 7, 9):
        chosen |= {f"op.{block}": "keep", f"left.{block}": 0.5}
    chosen |= {"op.3": "prune", "op.7": "pool", "left.7": 0.3}

    policy = load_space("default").suggest(Fixed(chosen), DEIT)

    assert policy == Policy(DEIT, (Prune(3, 96), Pool(7, 48)), proportional_attention=True)


def test_a_model_without_class_token_is_offered_prunes_by_mean_attention() -> None:
    space = load_space("default").fitting(DEIT, scored=False, prefix_read=False)

    assert space.score == "mean_attention"
    assert space.last_block == ("full",)


def test_ladders_are_schedules_of_the_space_around_the_target() -> None:
    space = load_space("default")

    shares = [mac_share(space.suggest(Fixed(p), DEIT)) for p in ladders(space, DEIT, (), limit=0.5)]

    # One site at every share of the ladder, and six shapes around the target; without timings,
    # saving two thirds of the multiply-accumulates is expected to halve the latency.
    assert len(shares) == 11 + 6
    assert min(shares) < 0.2
    assert sum(share < 0.5 for share in shares[11:]) >= 5


def test_published_schedules_come_with_a_random_control() -> None:
    names = [name for name, _ in published(DEIT, scored=True, prefix_read=True)]

    assert names[0] == "none"
    assert {"last-cls", "tome-r13", "topk-0.7", "random-topk-0.7"} < {*names}


def test_published_schedules_leave_out_what_the_model_cannot_follow() -> None:
    names = [name for name, _ in published(DEIT, scored=False, prefix_read=False)]

    assert not {"last-cls", "topk-0.7"} & {*names}


def test_an_unknown_space_is_refused_with_the_known() -> None:
    with pytest.raises(SpaceError, match=r"search space 'fast' is unknown; known are .*default"):
        load_space("fast")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("every = 2", "every = 0", "blocks.every is 0; it must be an integer above 0"),
        ("by = 4", "by = 0", "steps.by is 0; it must be an integer above 0"),
        ("first = 1 ", "begin = 1 ", "section 'blocks' must hold exactly first, last, every"),
        ("[0.05,", "[1.05,", "steps.left is [1.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, "
         "0.6, 0.7, 0.8, 0.9]; it must be a list of shares above 0 and below 1"),
        ('name = "default"', "", "the search space has no name; "
         "it holds name, blocks, steps, whole"),
        ("[whole]", "[hole]", "the search space has the unknown entry 'hole'; "
         "it holds name, blocks, steps, whole"),
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

    assert str(raised.value) == message
    assert raised.value.__notes__ == [f"in {path}"]


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text("name = ")

    with pytest.raises(SpaceError, match=r"space\.toml cannot be read: Invalid value"):
        load_space(tmp_path / "space.toml")


def test_a_space_without_an_allowed_block_is_refused() -> None:
    with pytest.raises(
        SpaceError, match="allows blocks 1 to 0, of which short with 2 blocks has none"
    ):
        load_space("default").blocks(ModelSpec("short", 2, 16, 1, 8))


def test_a_ranked_pool_goes_by_the_score_of_the_space(tmp_path: Path) -> None:
    (tmp_path / "ranked.toml").write_text(DEFAULT.replace('"bipartite"', '"ranked"'))

    space = load_space(tmp_path / "ranked.toml").fitting(DEIT, scored=False, prefix_read=True)

    drawn = [space.suggest(Dice(seed), DEIT) for seed in range(20)]
    assert {score for policy in drawn for score in policy.scores} == {"mean_attention"}


def test_a_grid_is_nothing_to_search(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(DEFAULT.replace('"bipartite"', '"grid"'))

    with pytest.raises(SpaceError, match=r"steps\.match is 'grid'"):
        load_space(tmp_path / "grid.toml")
