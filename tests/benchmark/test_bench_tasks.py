"""Every task of PANGAEA and of GEO-Bench-2 through `eosfm bench`, from files in the published layouts to rows, on miniatures."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from eosfm.benchmark import measuring, run
from eosfm.benchmark.ledger import Ledger
from eosfm.benchmark.suite import Case, Suite, read_suite
from eosfm.benchmark.tasks import GEO_BENCH_2, PANGAEA
from eosfm.data.catalogue import reader_options
from eosfm.data.files import DataConfig
from eosfm.specialists.store import save_specialist
from eosfm.tasks.model import HeadConfig
from eosfm.training.settings import FitConfig
from helpers import make_card, make_encoder
from miniatures import geobench2, geobench2_things, pangaea

_GEO_BENCH = {**geobench2.WRITERS, **geobench2_things.WRITERS}
WRITERS = {**pangaea.WRITERS, **{f"geobench2-{name}": write for name, write in _GEO_BENCH.items()}}
TASKS = [task.dataset for task in (*PANGAEA.values(), *GEO_BENCH_2.values())]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One suite of all tasks, run: its rows, and what went wrong."""
    folder = tmp_path_factory.mktemp("tasks")
    for seed, (name, bands) in enumerate(
        [("colours", "sentinel-2-l2a:B04,B03,B02@reflectance"), ("grey", "sar:VV,VV,VV@8bit")]
    ):
        card = make_card(name, bands)
        save_specialist(make_encoder(len(card.bands), seed), card, folder / "zoo")
    cases = []
    for name in TASKS:
        WRITERS[name](folder / name)
        options = {"tile": 32} if "tile" in reader_options(name) else {}
        data = DataConfig(kind="dataset", dataset=name, root=folder / name, limit=1, **options)
        fit, head = FitConfig(epochs=1, batch_size=1), HeadConfig(decoder="linear", channels=8, dropout=0.0)
        cases.append(
            Case(
                name=name,
                data=data,
                protocol="geobench2" if name.startswith("geobench2-") else "pangaea",
                fit=fit,
                head=head,
            )
        )
    suite = Suite(
        name="tasks",
        zoo=folder / "zoo",
        cases=tuple(cases),
        models=("constant", "ensemble"),
        output=folder / "out",
        seeds=(0,),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            measuring, "load_specialist", cache(measuring.load_specialist)
        )  # frozen: read once, not 124 times
        done = run.run_suite(suite)
    return suite, done


def test_every_task_is_measured_from_its_files_to_its_row(measured):
    suite, done = measured
    assert not done.left_out
    assert not done.problems
    rows = {(r["case"], r["model"]): r for r in done.rows}
    wanted = {(n, m) for n in TASKS for m in ("constant", "ensemble")}
    assert set(rows) == wanted and len(TASKS) == 31
    for r in rows.values():
        assert r["chips"] == [1, 1, 1] and len(r["data_sha256"]) == 3 and len(r["classes"]) >= 1
        assert all(np.isfinite(m["value"]) for m in r["metrics"])
        assert len(Ledger(suite.folder).table(r)) == 1


def test_the_row_says_the_tasks_metric(measured):
    _, done = measured
    named = {r["case"]: {m["name"] for m in r["metrics"]} for r in done.rows}
    for task in (*PANGAEA.values(), *GEO_BENCH_2.values()):
        assert any(m.startswith(task.metric) for m in named[task.dataset]), (task.dataset, named[task.dataset])


def test_the_published_suites_name_every_task():
    folder = Path(__file__).parents[2] / "benchmarks"
    for file, tasks in (("pangaea.yaml", PANGAEA), ("geobench2.yaml", GEO_BENCH_2)):
        cases = read_suite(folder / file).cases
        named = [c.data.dataset for c in cases]
        wanted = {t.dataset for t in tasks.values()}
        assert set(named) == wanted and len(named) == len(wanted)
