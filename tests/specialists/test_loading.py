"""A specialist is loaded without drawing initial weights, which only holds while every tensor of it is stored."""

from __future__ import annotations

import torch

from eosfm.specialists.backbone import loaded
from eosfm.specialists.encoder import FrozenEncoder
from helpers import make_card, make_encoder


def test_everything_an_encoder_computes_with_is_in_its_file():
    encoder = FrozenEncoder(5)
    held = {n for n, _ in encoder.body.named_parameters()} | {n for n, _ in encoder.body.named_buffers()}
    assert held == encoder.tensors().keys()


def test_a_loaded_specialist_is_the_stored_one_and_frozen():
    stored = make_encoder(2, 3)
    state = torch.get_rng_state()
    encoder = loaded(make_card("s1", "sentinel-1:VV,VH@db"), stored.tensors(), "s1")
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(p.is_meta or p.requires_grad for p in encoder.parameters()) and not encoder.training
    x = torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(encoder(x), stored(x), strict=True))
