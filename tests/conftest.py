"""Shared fixtures. No test needs a network, a GPU or real data; every encoder has small random weights."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import helpers
from eosfm.specialists.store import save_specialist

torch.set_num_threads(1)
os.environ["EOSFM_KERNELS"] = "/dev/null/none"  # what a developer has built must not decide what is tested
settings.register_profile("eosfm", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("eosfm")


@pytest.fixture(scope="session")
def make_specialist():
    """``make_specialist(name, bands, seed) -> (FrozenEncoder, SpecialistCard)`` with random weights."""
    return helpers.make_specialist


@pytest.fixture(scope="session")
def tiny_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo of four random specialists on disk. Shared by all tests: read it, never write to it."""
    zoo = tmp_path_factory.mktemp("tiny") / "zoo"
    for seed, (name, bands) in enumerate(helpers.TINY.items()):
        save_specialist(*helpers.make_specialist(name, bands, seed), zoo)
    return zoo


@pytest.fixture
def own_zoo(tiny_zoo: Path, tmp_path: Path) -> Path:
    """A zoo of one specialist, "s2-rgb", that a test may damage."""
    zoo = tmp_path / "zoo"
    shutil.copytree(tiny_zoo / "s2-rgb", zoo / "s2-rgb")
    return zoo
