"""Decoders: a map at stride 4 from any pyramid, and a linear decoder that is the same mathematics done cheaply."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eosfm.contracts import ConfigError
from eosfm.tasks.decoders import DECODERS, LinearDecoder, make_decoder

CHANNELS = [4, 8, 16, 32]


def pyramid(channels=CHANNELS, batch: int = 2, size: tuple[int, int] = (16, 24), seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    h, w = size
    return [
        torch.randn(batch, c, max(1, h // 2**i), max(1, w // 2**i), generator=g, requires_grad=True)
        for i, c in enumerate(channels)
    ]


def test_the_linear_decoder_is_upsample_concatenate_convolve():
    torch.manual_seed(0)
    decoder = LinearDecoder(CHANNELS, 6)
    maps = pyramid()
    reference = nn.Conv2d(sum(CHANNELS), 6, 1)
    with torch.no_grad():
        reference.weight.copy_(torch.cat([p.weight for p in decoder.projections], 1))
        reference.bias.copy_(decoder.projections[0].bias)
        up = [F.interpolate(m, size=maps[0].shape[-2:], mode="bilinear", align_corners=False) for m in maps]
        torch.testing.assert_close(decoder(maps), reference(torch.cat(up, 1)), rtol=0, atol=1e-5)
    assert sum(p.numel() for p in decoder.parameters()) == sum(p.numel() for p in reference.parameters())


def test_the_linear_decoder_is_linear():
    decoder, a, b = LinearDecoder(CHANNELS, 6), pyramid(seed=1), pyramid(seed=2)
    zero = decoder([0 * m for m in a])
    both = decoder([2 * x + 3 * y for x, y in zip(a, b, strict=True)])
    torch.testing.assert_close(both - zero, 2 * (decoder(a) - zero) + 3 * (decoder(b) - zero), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("size", [(8, 8), (16, 24)])
def test_the_output_is_at_stride_4_and_finite(name: str, norm: str, size: tuple[int, int]):
    torch.manual_seed(0)
    decoder = make_decoder(name, CHANNELS, 16, 0.0, norm)
    out = decoder(pyramid(size=size))
    assert out.shape == (2, 16, *size)
    assert out.isfinite().all()
    assert decoder.out_channels == 16


@pytest.mark.parametrize("name", DECODERS)
def test_every_level_and_every_weight_counts(name: str):
    """A level or a layer without a gradient would be a wire that was never connected."""
    torch.manual_seed(0)
    decoder, maps = make_decoder(name, CHANNELS, 16, 0.0), pyramid()
    (decoder(maps) * torch.randn(2, 16, 16, 24)).sum().backward()
    assert all(m.grad is not None and m.grad.abs().sum() > 0 for m in maps)
    assert {n for n, p in decoder.named_parameters() if p.grad is None or not p.grad.any()} == set()


@pytest.mark.parametrize("name", DECODERS)
def test_each_level_reaches_the_output_where_it_lies(name: str):
    """A change in one corner of a fine level changes that corner and not the far one, in evaluation mode."""
    torch.manual_seed(0)
    decoder = make_decoder(name, CHANNELS, 16, 0.1, "batch").eval()
    with torch.no_grad():
        maps = [m.detach() for m in pyramid(size=(32, 32))]
        before = decoder(maps)
        maps[0] = maps[0].clone()
        maps[0][..., 0, 0] += 5
        change = (decoder(maps) - before).abs().amax((0, 1))
    assert change[:4, :4].max() > 0
    assert change[16:, 16:].max() == 0


@pytest.mark.parametrize("name", ["upernet", "unet"])
def test_group_norm_makes_chips_independent_and_batch_of_one_trainable(name: str):
    torch.manual_seed(0)
    decoder, maps = make_decoder(name, CHANNELS, 16, 0.0, "group").train(), pyramid()
    both, first = decoder(maps), decoder([m[:1] for m in maps])
    torch.testing.assert_close(both[:1], first, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["upernet", "unet"])
def test_dropout_acts_in_training_only(name: str):
    torch.manual_seed(0)
    decoder, maps = make_decoder(name, CHANNELS, 16, 0.5), pyramid()
    assert not torch.equal(decoder.train()(maps), decoder(maps))
    assert torch.equal(decoder.eval()(maps), decoder(maps))


def test_the_upernet_of_the_paper_has_512_channels_and_pools_of_1_2_3_6():
    from eosfm.tasks.decoders import UPerNet

    decoder = UPerNet([40, 80, 160, 320])
    assert decoder.out_channels == 512
    assert [p[0].output_size for p in decoder.pools] == [1, 2, 3, 6]
    assert decoder.dropout.p == 0.1


def test_unknown_decoders_list_the_known():
    with pytest.raises(ConfigError, match="unknown decoder 'fpn'; known: linear, unet, upernet"):
        make_decoder("fpn", CHANNELS, 16)
