"""Local, reproducible randomness: one seed per purpose, and the caller's random state left as it was."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def purpose_seed(seed: int, purpose: str, *numbers: int) -> int:
    """A 63-bit seed for one purpose: ``purpose_seed(0, "augment", epoch, index)``; equal arguments, equal seed."""
    text = f"{seed}/{purpose}/" + "/".join(map(str, numbers))
    return (zlib.crc32(text.encode()) << 31) ^ zlib.adler32(text[::-1].encode())


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's CPU generator seeded inside the block and restored after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
