"""Writes that fail (T2, T3): whatever was being stored, the previous artifact is intact and nothing half written is left."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from eosfm.bands import BandSet
from eosfm.composition import compose, load, save_ensemble
from eosfm.ensemble import Ensemble
from eosfm.files import write_json
from eosfm.specialists.card import DataInfo, TrainingInfo
from eosfm.specialists.store import load_specialist, save_specialist
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec
from eosfm.tasks.stored import load_task_model, save_task_model
from eosfm.training.module import AtomicCheckpoints, read_checkpoint
from helpers import TINY, full_disk, image, make_specialist, statistics_of, tree

BANDS = BandSet.parse("sentinel-2-l2a:B04,B03,B02@dn-1e4 + sentinel-1:VV,VH@db")


def ensemble(zoo: Path, fusion: str = "conv1x1") -> Ensemble:
    return Ensemble(
        [load_specialist(f) for f in sorted(zoo.iterdir())], BANDS, statistics=statistics_of(BANDS), fusion=fusion
    )


def store_specialist(zoo: Path, place: Path, seed: int) -> None:
    encoder, card = make_specialist("x", TINY["s2-rgb"], seed)
    save_specialist(encoder, dataclasses.replace(card, name=place.name), place.parent, overwrite=True)


def store_ensemble(zoo: Path, place: Path, seed: int) -> None:
    save_ensemble(ensemble(zoo, ("conv1x1", "mlp")[seed]), place, zoo, overwrite=True)


def store_composition(zoo: Path, place: Path, seed: int) -> None:
    compose(zoo, place, fusion=("sum", "product")[seed], overwrite=True)


def store_task(zoo: Path, place: Path, seed: int) -> None:
    task = TaskSpec(
        kind="segmentation", classes=("a", "b"), chip_size=32, head=HeadConfig(decoder="linear", channels=8 + seed)
    )
    data, training = DataInfo(name="noise", licence="CC0-1.0"), TrainingInfo()
    save_task_model(TaskModel(ensemble(zoo), task), place, zoo, name="t", data=data, training=training, overwrite=True)


def store_checkpoint(zoo: Path, place: Path, seed: int) -> None:
    AtomicCheckpoints().save_checkpoint({"x": torch.full((10_000,), float(seed))}, place)


def store_json(zoo: Path, place: Path, seed: int) -> None:
    write_json(place, [seed] * 10_000)


Store = Callable[[Path, Path, int], None]
STORES: dict[str, tuple[Store, Callable[[Path], object]]] = {
    "specialist": (store_specialist, load_specialist),
    "ensemble": (store_ensemble, lambda p: load(p)(image(BANDS, 1, 32))),
    "composition": (store_composition, lambda p: load(p, BANDS, statistics=statistics_of(BANDS))),
    "task": (store_task, load_task_model),
    "checkpoint": (store_checkpoint, read_checkpoint),
    "json": (store_json, Path.read_text),
}


@contextmanager
def failing(monkeypatch, name: str):
    if name == "disk full":
        with full_disk(300):
            yield
        return

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        if name == "sync fails":
            m.setattr("os.fsync", fail)
        else:
            m.setattr(Path, "replace", fail)
            m.setattr("eosfm.files._exchange", lambda *_: False)  # where the system cannot swap two names
        yield


@pytest.mark.parametrize("how", ["disk full", "sync fails", "rename fails"])
@pytest.mark.parametrize("what", STORES)
def test_a_failed_write_leaves_the_previous_artifact_and_nothing_else(
    own_zoo: Path, tmp_path: Path, monkeypatch, what: str, how: str
):
    store, use = STORES[what]
    place = tmp_path / "out" / "artifact"
    store(own_zoo, place, 0)
    before = tree(tmp_path)
    with failing(monkeypatch, how), pytest.raises(Exception, match=r"(?i)cannot write|space|too large|enforce fail"):
        store(own_zoo, place, 1)
    assert tree(tmp_path) == before
    assert [p.name for p in place.parent.iterdir()] == ["artifact"], "temporary files are left"
    use(place)
    store(own_zoo, place, 1)
    assert tree(tmp_path) != before, "the second write would not have changed anything, so this test proves nothing"
    use(place)


@pytest.mark.parametrize("what", STORES)
def test_a_first_write_that_fails_leaves_nothing(own_zoo: Path, tmp_path: Path, what: str):
    place = tmp_path / "out" / "artifact"
    with full_disk(300), pytest.raises(Exception, match=r"(?i)cannot write|space|too large|enforce fail"):
        STORES[what][0](own_zoo, place, 0)
    assert list(place.parent.iterdir()) == []


@pytest.mark.parametrize("what", STORES)
def test_a_place_below_a_regular_file_is_refused_and_the_file_stays(own_zoo: Path, tmp_path: Path, what: str):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Exception, match="cannot write"):
        STORES[what][0](own_zoo, tmp_path / "file" / "artifact", 0)
    assert (tmp_path / "file").read_text() == "mine"
