"""Data sets whose real files lie in ../shared/data need no miniature: a recipe that reads them is tried on the real thing."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("EOSFM_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def _link(folder: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data")
    folder.symlink_to(SHARED)


MINIATURES: dict[str, Callable[[Path], None]] = {"eurosat-rgb": _link}
