"""Heads: logits at the image's resolution for pixels, one vector for scenes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from eosfm.tasks.heads import PixelHead, SceneHead

CHANNELS = [4, 8, 16, 32]


def pyramid(batch: int = 2, h: int = 64, w: int = 96, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, c, h // s, w // s, generator=g) for c, s in zip(CHANNELS, (4, 8, 16, 32), strict=True)]


@pytest.mark.parametrize("decoder", ["linear", "unet", "upernet"])
def test_pixel_logits_have_the_image_s_size(decoder: str):
    assert PixelHead(CHANNELS, 3, decoder, 16)(pyramid()).shape == (2, 3, 64, 96)


def test_a_pixel_head_is_decode_classify_upsample():
    head = PixelHead(CHANNELS, 3, "linear", 16).eval()
    maps = pyramid()
    expected = F.interpolate(head.classify(head.decoder(maps)), size=(64, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(head(maps), expected)


def test_a_scene_head_by_hand():
    head, maps = SceneHead(CHANNELS, 5), pyramid()
    pooled = torch.stack([
        torch.stack([m[i, c].mean() for m in maps for c in range(m.shape[1])]) for i in range(2)
    ])  # fmt: skip
    pooled = (pooled - pooled.mean(1, keepdim=True)) / (pooled.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = pooled @ head.classify.weight.T + head.classify.bias
    torch.testing.assert_close(head(maps), expected, rtol=0, atol=1e-5)
    assert head(maps).shape == (2, 5)


def test_a_scene_head_does_not_see_where_things_are():
    head, maps = SceneHead(CHANNELS, 5).eval(), pyramid()
    torch.testing.assert_close(head([m.flip(-1) for m in maps]), head(maps), rtol=0, atol=1e-5)


def test_a_scene_head_s_only_weights_are_one_linear_layer():
    assert [tuple(p.shape) for p in SceneHead(CHANNELS, 5).parameters()] == [(5, 60), (5,)]
