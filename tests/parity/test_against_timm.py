"""The encoder is timm's, exactly; only the head is gone."""

from __future__ import annotations

import pytest
import timm
import torch

from eosfm.specialists.encoder import ConvNeXtV2Atto, FrozenEncoder
from helpers import equal, random_weights


@pytest.mark.parametrize("channels", [1, 3, 13])
def test_the_encoder_is_timm_s_with_the_same_weights(channels: int):
    theirs = timm.create_model("convnextv2_atto", pretrained=False, features_only=True, in_chans=channels).eval()
    weights = random_weights(channels, 4)
    theirs.load_state_dict(weights, strict=True)
    ours = FrozenEncoder(channels)
    ours.load_tensors(weights, "x")
    x = torch.randn(2, channels, 64, 96)
    with torch.no_grad():
        assert equal(ours(x), theirs(x))
    assert list(ours.tensors()) == list(theirs.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_takes_timm_s_steps(dtype: torch.dtype):
    """While training, the response norm is computed another way: the same features and gradients up to rounding."""
    theirs = timm.create_model("convnextv2_atto", pretrained=False, features_only=True, in_chans=3).train()
    weights = random_weights(3, 4)
    theirs.load_state_dict(weights, strict=True)
    ours = ConvNeXtV2Atto(3).train()
    ours.load_tensors(weights, "x")
    x = torch.randn(2, 3, 64, 96)
    x[0, :, :32] = 0  # where nothing responds there is no direction to go
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        a, b = ours(x), theirs(x)
    sum(m.float().square().mean() for m in a).backward()
    sum(m.float().square().mean() for m in b).backward()
    a, b = [m.detach().float() for m in a], [m.detach().float() for m in b]
    tolerance = 1e-5 if dtype is torch.float32 else 0.03
    for one, other in zip(a, b, strict=True):
        assert float((one - other).norm() / other.norm()) < tolerance
    for (name, p), q in zip(ours.body.named_parameters(), theirs.parameters(), strict=True):
        assert torch.isfinite(p.grad).all()
        assert float((p.grad - q.grad).norm()) <= 10 * tolerance * float(q.grad.norm()) + 1e-6, name


def test_an_image_of_nothing_has_finite_gradients():
    ours = ConvNeXtV2Atto(3).train()
    (sum(m.sum() for m in ours(torch.zeros(1, 3, 32, 32)))).backward()
    assert all(p.grad.isfinite().all() for p in ours.parameters())


def test_the_pyramid_is_the_classifier_s_own_intermediate_maps():
    """Against the full model, whose weight names differ: ``stem.0`` for ``stem_0``."""
    weights = random_weights(3, 4)
    full = timm.create_model("convnextv2_atto", pretrained=False, num_classes=0).eval()
    renamed = {k.replace("stem_", "stem.").replace("stages_", "stages."): v for k, v in weights.items()}
    missing, unexpected = full.load_state_dict(renamed, strict=False)
    assert set(missing) <= {"head.norm.weight", "head.norm.bias"}
    assert not unexpected
    ours = FrozenEncoder(3)
    ours.load_tensors(weights, "x")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = full.forward_intermediates(x, intermediates_only=True)
        assert equal(ours(x), [m.contiguous() for m in maps])


@pytest.mark.parametrize(("channels", "parameters"), [(3, 3_386_760), (13, 3_393_160), (14, 3_393_800)])
def test_the_number_of_parameters_is_the_paper_s(channels: int, parameters: int):
    with torch.device("meta"):
        assert sum(p.numel() for p in ConvNeXtV2Atto(channels).parameters()) == parameters
        assert sum(p.numel() for p in FrozenEncoder(channels).parameters()) == parameters
