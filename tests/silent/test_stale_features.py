"""A picture that changes under its old name must not leave features of the old one in use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from eosfm.bands import BandSet
from eosfm.data.streams import HASHED, StreamedChips
from eosfm.engine.cache import cached_features
from eosfm.ensemble import Ensemble
from helpers import TINY, image, make_specialist

BANDS = BandSet.parse("sentinel-2-l2a:B04,B03,B02@dn-1e4")


@dataclass(frozen=True)
class Files:
    folder: Path

    def __call__(self, key: str):
        return torch.from_numpy(np.load(self.folder / key)), torch.tensor(0)


def test_a_picture_changed_under_its_old_name_is_computed_again(tmp_path: Path):
    """The data's own hash looks at some of the pixels only, so that it can be had without reading everything."""
    folder, n = tmp_path / "pictures", 2 * HASHED
    folder.mkdir()
    names = tuple(f"{i:03d}.npy" for i in range(n))
    for i, name in enumerate(names):
        np.save(folder / name, image(BANDS, 1, 32, i)[0].numpy())
    chips = StreamedChips(Files(folder), names, (32, 32), BANDS, "classification", ("a", "b"), "pictures")
    ens = Ensemble([make_specialist("s2-rgb", TINY["s2-rgb"], 0)], BANDS)
    cached_features(ens, chips, folder=tmp_path / "features")
    unseen = next(i for i in range(n) if i not in chips.spread(HASHED))
    before = chips.sha256()
    np.save(folder / names[unseen], image(BANDS, 1, 32, 4711)[0].numpy())
    assert chips.sha256() == before
    (got,), _ = cached_features(ens, chips, folder=tmp_path / "features").batch([unseen])
    for m, truth in zip(got, ens.encode(chips.batch([unseen])[0])[0], strict=True):
        torch.testing.assert_close(m, truth, rtol=0, atol=1e-4)
