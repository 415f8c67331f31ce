"""The commands about published data: fetch. Importing this imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eosfm.contracts import ConfigError
from eosfm.outcomes import Outcome


def fetch(
    dataset: Annotated[str, typer.Argument(metavar="[DATASET]", help="For example geobench2-caffe.")] = "",
    folder: Annotated[Path | None, typer.Argument(metavar="[FOLDER]", help="Where its files go.")] = None,
) -> Outcome:
    """Fetch a published data set, and check its hash. Begun again, it goes on. Without arguments: which can be fetched."""
    from eosfm.data.published.fetch import fetch as bring
    from eosfm.data.published.fetch import fetchable, remotes
    from eosfm.progress import bar

    if not dataset:
        names = fetchable()
        return Outcome(names, (*names, "others: docs/tasks.md and docs/zoo.md say where they are published"))
    if folder is None:
        raise ConfigError(f"name the folder, for example: eosfm fetch {dataset} data/{dataset}")
    files = remotes(dataset)
    with bar(f"fetch {dataset}") as progress:
        lines = bring(files, folder, progress)
    unpack = [f"unpack it there: {f.name}" for f in files if f.name.endswith(".zip")]
    return Outcome(lines, (*lines, *unpack, f"in a file: data: {{kind: dataset, dataset: {dataset}, root: {folder}}}"))
