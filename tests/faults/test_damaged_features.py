"""Feature caches that were damaged, or lie where nothing can be written: refused in words, never trained on."""

from __future__ import annotations

import multiprocessing as mp
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from eosfm.bands import BandSet
from eosfm.contracts import CorruptArtifact, TrainingError
from eosfm.data.chips import Chips, Splits
from eosfm.data.streams import HASHED, StreamedChips
from eosfm.engine import shards
from eosfm.engine.cache import SHARD, cached_features
from eosfm.engine.shards import ABANDONED
from eosfm.ensemble import Ensemble
from eosfm.files import OutputError
from eosfm.tasks.model import HeadConfig, TaskSpec
from eosfm.training.fit import adapt_ensemble
from eosfm.training.settings import FitConfig
from helpers import TINY, full_disk, image, make_specialist, tree

BANDS = BandSet.parse("sentinel-2-l2a:B04,B03,B02@dn-1e4")


def ensemble() -> Ensemble:
    return Ensemble([make_specialist("s2-rgb", TINY["s2-rgb"], 0)], BANDS)


def chips(n: int = 4, seed: int = 0) -> Chips:
    x = image(BANDS, n, 32, seed)
    return Chips(
        images=x, labels=torch.arange(n) % 2, bands=BANDS, kind="classification", classes=("a", "b"), name=f"c{seed}"
    )


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A good shard of four chips; this process has not looked into it yet."""
    cached_features(ensemble(), chips(), folder=tmp_path / "features")
    shards._checked.clear()
    [path] = (tmp_path / "features").rglob("*.safetensors")
    return path


def a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def rewritten(change):
    def damage(path: Path) -> None:
        with shards.safe_open(path, framework="pt") as f:
            said = f.metadata()
        save_file({k: change(v).contiguous() for k, v in load_file(path).items()}, path, said)

    return damage


def of_other_chips(path: Path) -> None:
    cached_features(ensemble(), chips(seed=1), folder=path.parents[1])
    shards._checked.clear()
    [other] = [p for p in path.parent.glob("*.safetensors") if p != path]
    other.replace(path)


DAMAGE = {
    "a changed byte": a_byte,
    "cut short": lambda p: p.write_bytes(p.read_bytes()[:-9]),
    "nothing left": lambda p: p.write_bytes(b""),
    "not a shard": lambda p: p.write_bytes(b"x" * 5000),
    "numbers of another kind": rewritten(torch.Tensor.half),
    "fewer chips": rewritten(lambda v: v[:2]),
    "more chips": rewritten(lambda v: torch.cat([v, v])),
    "another shape": rewritten(lambda v: v.flatten(1)),
    "of other chips": of_other_chips,
    "without its hash": lambda p: save_file(load_file(p), p),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_shard_is_refused_and_deleting_it_is_enough(shard: Path, how: str):
    want, _ = cached_features(ensemble(), chips()).batch(range(4))
    DAMAGE[how](shard)
    with pytest.raises(CorruptArtifact, match=r"is not what was written.*delete this file"):
        cached_features(ensemble(), chips(), folder=shard.parents[1]).batch(range(4))
    shard.unlink()
    got, _ = cached_features(ensemble(), chips(), folder=shard.parents[1]).batch(range(4))
    for a, b in zip(want[0], got[0], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_what_lies_in_the_way_is_named_with_a_repair(shard: Path, tmp_path: Path):
    place = shard.parent
    shard.unlink()
    shard.mkdir()
    with pytest.raises(OutputError, match=r"is a folder; expected a file of features.*[Dd]elete it"):
        cached_features(ensemble(), chips(), folder=place.parent)
    shutil.rmtree(place)
    place.write_text("mine")
    with pytest.raises(OutputError, match=r"is a file; expected a folder of features.*another cache_folder"):
        cached_features(ensemble(), chips(), folder=place.parent)
    assert place.read_text() == "mine"
    for folder in (place, place / "below", Path("/proc/features")):
        with pytest.raises(OutputError, match=r"cannot write features into.*another cache_folder"):
            cached_features(ensemble(), chips(), folder=folder)


def test_a_full_disk_keeps_the_finished_shards_and_no_half_one(tmp_path: Path):
    both, folder = chips(SHARD + 60), tmp_path / "features"
    with full_disk(400_000), pytest.raises(OutputError, match="cannot write"):
        cached_features(ensemble(), both, folder=folder)
    assert tree(folder) == {}
    cached_features(ensemble(), both.subset(range(SHARD)), folder=folder)
    before = tree(folder)
    with full_disk(400_000), pytest.raises(OutputError, match="cannot write"):
        cached_features(ensemble(), both, folder=folder)
    assert tree(folder) == before
    cached_features(ensemble(), both, folder=folder).batch(range(len(both)))


def test_what_killed_runs_left_half_written_goes(shard: Path):
    old, new = (shard.with_name(f".{shard.name}.{n}.part") for n in ("old", "new"))
    for part, age in ((old, 2 * ABANDONED), (new, 5.0)):
        part.write_bytes(b"half")
        os.utime(part, (time.time() - age,) * 2)
    shard.unlink()
    cached_features(ensemble(), chips(), folder=shard.parents[1])
    assert new.exists() and not old.exists(), "another process may be writing the new one"


def _fill(folder: Path, done) -> None:
    torch.set_num_threads(1)
    pyramids, _ = cached_features(ensemble(), chips(SHARD + 6), folder=folder).batch(range(SHARD + 6))
    done.put(float(sum(m.double().sum() for m in pyramids[0])))


def test_two_processes_may_fill_one_folder(tmp_path: Path):
    context = mp.get_context("spawn")
    done = context.Queue()
    both = [context.Process(target=_fill, args=(tmp_path, done)) for _ in range(2)]
    for p in both:
        p.start()
    values = [done.get(timeout=120) for _ in both]
    for p in both:
        p.join()
    assert [p.exitcode for p in both] == [0, 0] and values[0] == pytest.approx(values[1], rel=1e-6)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2 and not list(tmp_path.rglob(".*.part"))


@dataclass(frozen=True)
class Files:
    folder: Path

    def __call__(self, key: str):
        return torch.from_numpy(np.load(self.folder / key)), torch.tensor(int(key[0]))


def test_a_run_is_not_continued_on_pictures_that_changed_under_their_names(tmp_path: Path):
    """The data's own hash looks at some chips only; the features know all of them."""
    n = 2 * HASHED
    names = [f"{i % 2}-{i:03d}.npy" for i in range(n + 8)]
    for i, name in enumerate(names):
        np.save(tmp_path / name, image(BANDS, 1, 32, i)[0].numpy())

    def part(ids, title):
        return StreamedChips(
            Files(tmp_path), tuple(ids), (32, 32), BANDS, "classification", ("a", "b"), title
        )  # fmt: skip

    train = part(names[:n], "train")
    splits = Splits(train, part(names[n : n + 4], "validation"), part(names[n + 4 :], "test"))
    task = TaskSpec(kind="classification", classes=("a", "b"), chip_size=32, head=HeadConfig(decoder="linear"))
    config = FitConfig(epochs=1, batch_size=64, learning_rate=1e-3)
    adapt_ensemble(ensemble(), splits, task, config, run=tmp_path / "run")
    adapt_ensemble(ensemble(), splits, task, config, run=tmp_path / "run")
    unseen = next(i for i in range(n) if i not in train.spread(HASHED))
    np.save(tmp_path / names[unseen], image(BANDS, 1, 32, 4711)[0].numpy())
    with pytest.raises(TrainingError, match="a run with other data"):
        adapt_ensemble(ensemble(), splits, task, config, run=tmp_path / "run")
