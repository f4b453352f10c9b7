"""`tokensearch worker`: join a search that other processes search too."""

import sys
import tempfile
from pathlib import Path

from tokensearch.cli.console import err
from tokensearch.cli.inputs import ModelOptions
from tokensearch.cli.option_groups import grouped
from tokensearch.cli.sharing import JoinOptions, merge_options


@grouped
def worker(*, wanted: ModelOptions, joining: JoinOptions) -> None:
    """Join a search that `tokensearch run --storage` has begun.

    Options of model and images that are not given are the run's; what names code or a folder has to
    be given. A worker ends with the search. Killed at any moment it loses nothing that is finished,
    and what it had begun is begun anew by another.
    """
    from dataclasses import replace

    from tokensearch.cli.inputs import load_inputs
    from tokensearch.cli.progress import progress_listener
    from tokensearch.records.run_folder import RunFolder
    from tokensearch.redaction import redact_command
    from tokensearch.search.space.toml import parse_space
    from tokensearch.search.workers.answers import store_beside
    from tokensearch.search.workers.publish import Publication
    from tokensearch.search.workers.run import Sharing, WorkerRun
    from tokensearch.search.workers.storage import shared_storage

    assert joining.storage is not None  # refused otherwise
    assert joining.study is not None
    with (
        shared_storage(joining.storage) as storage,
        tempfile.TemporaryDirectory(prefix="tokensearch-worker-") as scratch,
    ):
        publication, folder = Publication(storage.studies, joining.study), RunFolder(Path(scratch))
        publication.wait_until_ready(err.print)
        publication.fetch(folder)
        published, space = publication.run(), parse_space(publication.space())
        options = merge_options(publication.options(), wanted, joining.given)
        subject = load_inputs(options)
        cell = subject.cell
        settings = replace(published.settings, device=cell.device, backend=cell.backend)
        with progress_listener(err) as watcher:
            WorkerRun(
                subject.model,
                subject.splits,
                space,
                settings,
                published.budget,
                folder,
                watcher,
                redact_command(["tokensearch", *sys.argv[1:]]),
                store_beside(storage),
                dense=subject.dense,
                sharing=Sharing(storage, joining.study, joining.role),
            ).run()
