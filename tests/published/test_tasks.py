"""The benchmark's tasks as data: what the readers say, what errors say, and what docs/tasks.md shows."""

from pathlib import Path

import pytest

from eosfm.benchmark.tasks import CAPABILITIES, GEO_BENCH_2, PANGAEA, TASKS, where_to_get
from eosfm.contracts import DataError
from eosfm.data.catalogue import dataset_names, open_dataset, reader_options
from eosfm.tasks.kinds import OBJECTS
from eosfm.tasks.objectives import OBJECTIVES
from miniatures import geobench2, geobench2_things
from miniatures.pangaea import WRITERS

GEO_WRITERS = {**geobench2.WRITERS, **geobench2_things.WRITERS}


@pytest.mark.parametrize("name", PANGAEA)
def test_a_task_says_what_its_reader_says(name, tmp_path):
    task = PANGAEA[name]
    assert name in dataset_names()
    WRITERS[name](tmp_path)
    options = {"tile": 32} if "tile" in reader_options(name) else {}
    train = open_dataset(name, tmp_path, **options).train
    assert task.bands == str(train.bands) and task.classes == len(train.classes) and task.dates == train.dates
    assert train.kind == ("segmentation" if task.kind == "change" else task.kind)
    assert task.metric == OBJECTIVES[train.kind].monitor
    assert (train.dates == 2) == (task.kind == "change")


@pytest.mark.parametrize("name", GEO_WRITERS)
def test_a_task_of_geo_bench_2_says_what_its_reader_says(name, tmp_path):
    task = GEO_BENCH_2[name]
    GEO_WRITERS[name](tmp_path)
    train = open_dataset(task.dataset, tmp_path).train
    assert task.bands == str(train.bands) and task.classes == len(train.classes) and task.dates == train.dates
    assert train.kind == task.kind
    with pytest.raises(DataError) as caught:
        open_dataset(task.dataset, tmp_path / "nowhere")
    assert str(caught.value).endswith(where_to_get(f"geobench2/{name}").partition(": ")[2])


@pytest.mark.parametrize("name", PANGAEA)
def test_the_error_says_what_where_to_get_says(name, tmp_path):
    with pytest.raises(DataError) as caught:
        open_dataset(name, tmp_path)
    text = where_to_get(f"pangaea/{name}")
    title, _, rest = text.partition(": ")
    assert str(caught.value).startswith(f"{title}: ") and str(caught.value).endswith(rest)


def test_geo_bench_2_has_19_tasks_in_nine_overlapping_groups():
    members = {name for names in CAPABILITIES.values() for name in names}
    assert set(GEO_BENCH_2) == members and len(members) == 19 and len(CAPABILITIES) == 9 and len(PANGAEA) == 12
    for name, task in GEO_BENCH_2.items():
        assert [g for g in CAPABILITIES if name in CAPABILITIES[g]] == list(task.groups)
        assert ("detection" in task.groups) == (task.kind in OBJECTS)
        assert "https://hf.co/datasets/aialliance/" in where_to_get(f"geobench2/{name}")
    assert len(CAPABILITIES["core"]) == 12
    assert [n for n, t in GEO_BENCH_2.items() if t.scale is not None] == ["biomassters"]
    with pytest.raises(DataError, match="unknown task 'pastis'; known: geobench2/benv2"):
        where_to_get("pastis")
    assert len(TASKS) == 31


def test_the_page_shows_the_tables(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from task_table import tables

    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    missing = [row for row in tables().splitlines() if row not in page]
    assert not missing, (
        "run: PYTHONPATH=src .venv/bin/python tests/published/task_table.py, and put it into docs/tasks.md"
    )


def test_the_page_shows_the_published_leaderboard(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from leaderboard_table import table

    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert table() in page, "run: PYTHONPATH=src .venv/bin/python tests/published/leaderboard_table.py"
