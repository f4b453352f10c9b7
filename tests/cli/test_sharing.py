"""What a worker takes from the study that it joins, and what it has to be told itself."""

from dataclasses import replace

import pytest
from typer import BadParameter

from tokensearch.cli.inputs import ModelOptions
from tokensearch.cli.sharing import SharingOptions, merge_options, publish_options
from tokensearch.errors import ModelError, RunError

RUN = ModelOptions(batch_size=4, images="32,32,32", seed=3)


def test_a_worker_takes_the_options_of_the_run() -> None:
    assert merge_options(publish_options(RUN), ModelOptions(), ()) == RUN


def test_what_is_given_to_a_worker_goes_before_what_the_run_was_given() -> None:
    mine = ModelOptions(device="cpu")

    assert merge_options(publish_options(RUN), mine, ("--device",)) == replace(RUN, device="cpu")


def test_a_database_makes_no_worker_read_a_folder_or_run_code() -> None:
    with pytest.raises(RunError, match="was begun with --data digits, which is read only if you"):
        merge_options(publish_options(replace(RUN, data="digits")), ModelOptions(), ())
    with pytest.raises(ModelError, match="is loaded only if you name it yourself"):
        merge_options(publish_options(replace(RUN, model="os:system")), ModelOptions(), ())


@pytest.mark.parametrize(
    "wrong", [{"batch_size": "8"}, {"device": ["cpu"]}, {"seed": True}, {"seed": None}]
)
def test_an_option_of_a_database_that_no_command_line_could_give_is_refused(
    wrong: dict[str, object],
) -> None:
    with pytest.raises(RunError, match="or begin a new --study"):
        merge_options({**publish_options(RUN), **wrong}, ModelOptions(), ())


def test_a_worker_that_names_them_itself_may_read_them() -> None:
    published = publish_options(replace(RUN, data="digits", model="mine:model"))
    mine = ModelOptions(data="digits", model="mine:model")

    merged = merge_options(published, mine, ("--data", "--model"))

    assert (merged.data, merged.model, merged.seed) == ("digits", "mine:model", 3)


def test_workers_without_a_storage_are_refused() -> None:
    with pytest.raises(BadParameter, match="--workers needs --storage"):
        SharingOptions(workers=2).check(fresh=False)


def test_a_shared_search_is_begun_anew_in_another_study() -> None:
    with pytest.raises(BadParameter, match="name a new --study instead"):
        SharingOptions(storage="postgresql+psycopg://me@db/x").check(fresh=True)
