"""xView2 (xBD): damage to buildings before and after disasters (Gupta et al. 2019, arXiv:1911.09296), in its own layout."""

from __future__ import annotations

from pathlib import Path

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.chips import Splits
from eosfm.data.folders import About
from eosfm.data.published.aerial_files import Scene, TileReader, scene_keys
from eosfm.data.published.pangaea_layouts import LAYOUTS
from eosfm.data.published.satellite_files import held_out, streamed

_LAYOUT = LAYOUTS["xview2"]
_RGB = ("R", "G", "B")
_ABOUT = About(
    "xView2",
    BandSet.parse("rgb:R,G,B@8bit"),
    "segmentation",
    ("no building", "no damage", "minor damage", "major damage", "destroyed"),
    "CC-BY-NC-SA-4.0",
    "xBD (Gupta et al. 2019, arXiv:1911.09296; xView2 challenge), pairs of pictures of 1024 x 1024 pixels by Maxar, below 0.8 m",
)
_VALUES = tuple((v, v) for v in range(len(_ABOUT.classes)))
_PRE, _POST = "_pre_disaster.png", "_post_disaster.png"
_HELD_OUT = 0.1


def xview2(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 512) -> Splits:
    """Damage, 0 to 4, from two dates: red, green, blue before, then after, float32 ``(6, tile, tile)``, 8 bit.

    Labels ``(tile, tile)`` are those after the disaster, as in PANGAEA (TorchGeo subtracts those before from them). PANGAEA's
    pictures are in the order blue, green, red.

    The test split is test/. PANGAEA validates on a tenth of train/ and tier3/ drawn chip by chip within each disaster;
    here whole disasters are held out, because chips of one disaster are neighbours. The disasters of test/ also occur in
    train/, as published.

    Args:
        root: holds ``train``, ``test`` and, where it is there, ``tier3``.
        seed: of the disasters for validation, and of the draw of ``limit``.
        limit: at most so many chips in each split.
        tile: side of the chips in pixels; pictures are 1024.

    Raises:
        DataError: missing files, pairs of different size, pictures that are not 8 bit, or (when it is read) another label.
        MissingExtra: Pillow is not installed.
    """
    root = _LAYOUT.folder(root, "train/images", "test/images")
    folders = [f for f in ("train", "tier3") if (root / f / "images").is_dir()]
    training = [s for f in folders for s in _scenes(root, f)]
    events = held_out((s.place for s in training), _HELD_OUT, seed, "xView2")
    parts = {
        "train": [s for s in training if s.place not in events],
        "validation": [s for s in training if s.place in events],
        "test": _scenes(root, "test"),
    }
    keys = {split: scene_keys(root, scenes, tile, "xView2") for split, scenes in parts.items()}
    read = TileReader(root, _RGB, _RGB, values=_VALUES)
    rule = (
        f"test: the published folder; validation: {', '.join(sorted(events))} of {' and '.join(folders)} (seed {seed})"
    )
    return streamed(_ABOUT, keys, read, (tile, tile), rule, limit=limit, seed=seed, dates=2)


def _scenes(root: Path, folder: str) -> list[Scene]:
    stems = sorted(p.name.removesuffix(_PRE) for p in (root / folder / "images").glob(f"*{_PRE}"))
    if not stems:
        raise DataError(f"xView2: no *{_PRE} in {root / folder / 'images'}. {_LAYOUT.where_to_get()}")
    targets = (root / folder / "targets").is_dir()
    scenes = []
    for stem in stems:
        label = f"{folder}/targets/{stem}_post_disaster_target.png" if targets else f"{folder}/masks/{stem}{_POST}"
        images = tuple(f"{folder}/images/{stem}{end}" for end in (_PRE, _POST))
        scenes.append(Scene(images, label, stem.rpartition("_")[0]))
    _LAYOUT.require(root / f for s in scenes for f in (*s.images, s.label))
    return scenes
