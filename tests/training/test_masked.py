"""The masked autoencoder: equal to a sparse encoder written as plain loops, and blind to what is hidden."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.models.convnext import ConvNeXtBlock

from eosfm.bands import BandSet
from eosfm.contracts import BandError, ConfigError, UnitError
from eosfm.specialists.encoder import ConvNeXtV2Atto, untrained_encoder
from eosfm.statistics import BandStatistics
from eosfm.training.masked import (
    DecoderBlock,
    MaskedAutoencoder,
    MaskedConfig,
    Target,
    draw_visible,
    masked_features,
    patch_normalised,
    stage_masks,
)

RGB = BandSet.parse("rgb:R,G,B@8bit")
BOTH = BandSet.parse("sentinel-2-l2a:B04,B03,B02@reflectance + sentinel-1:VV,VH@db")
S2, S1 = BandSet.parse("sentinel-2-l2a:B02,B04@reflectance"), BandSet.parse("sentinel-1:VV,VH@db")


def stirred(module, seed=0):
    """All weights random: at its start GRN is the identity and every bias 0, which would hide mistakes."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=g))
    return module


def statistics(n):
    return BandStatistics(mean=tuple(float(i) for i in range(n)), std=tuple(1.0 + i for i in range(n)))


def autoencoder(bands=RGB, targets=None, inputs=None, **settings):
    inputs = inputs or bands
    targets = targets or [Target(inputs)]
    config = MaskedConfig(**{"width": 24, **settings})
    torch.manual_seed(1)
    model = MaskedAutoencoder(ConvNeXtV2Atto(len(inputs)), bands, statistics(len(bands)), inputs, targets, config)
    return stirred(model).eval()


@torch.no_grad()
def loss_of(model, x, seed):
    return float(model.own_loss(x, seed))


# --- the sparse encoder, one position after the other ---------------------------------------------------------------


def layer_norm(v, m):
    return (v - v.mean()) / np.sqrt(v.var() + 1e-6) * m.weight.numpy() + m.bias.numpy()


def gelu(v):
    return F.gelu(torch.from_numpy(v)).numpy()


def pointwise(conv, v):
    return conv.weight.numpy()[:, :, 0, 0] @ v + conv.bias.numpy()


def sparse_block(block, cells):
    wide = {}
    for i, j in cells:
        v = block.conv_dw.bias.numpy().copy()
        for a in range(7):
            for b in range(7):
                near = cells.get((i + a - 3, j + b - 3))
                if near is not None:
                    v += block.conv_dw.weight.numpy()[:, 0, a, b] * near
        wide[i, j] = gelu(pointwise(block.mlp.fc1, layer_norm(v, block.norm)))
    energy = np.sqrt(sum(v**2 for v in wide.values()))
    relative = energy / (energy.mean() + 1e-6)
    grn = block.mlp.grn
    out = {}
    for at, v in wide.items():
        v = v + grn.weight.numpy() * v * relative + grn.bias.numpy()
        out[at] = cells[at] + pointwise(block.mlp.fc2, v)
    return out


def sparse_pyramid(encoder, x, shown):
    """Per level {(row, column): features} of one image ``(c, h, w)`` where ``shown(row, column)`` says which pixels are."""
    body, levels, cells = encoder.body, [], {}
    for i in range(x.shape[1] // 4):
        for j in range(x.shape[2] // 4):
            if shown(4 * i, 4 * j):
                window = x[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].numpy()
                v = np.tensordot(body.stem_0.weight.numpy(), window, 3) + body.stem_0.bias.numpy()
                cells[i, j] = layer_norm(v, body.stem_1)
    for s in range(4):
        stage = getattr(body, f"stages_{s}")
        if s:
            norm, merge = stage.downsample
            merged = {}
            for (i, j), v in cells.items():
                part = merge.weight.numpy()[:, :, i % 2, j % 2] @ layer_norm(v, norm)
                merged[i // 2, j // 2] = merged.get((i // 2, j // 2), merge.bias.numpy()) + part
            cells = merged
        for block in stage.blocks:
            cells = sparse_block(block, cells)
        levels.append(cells)
    return levels


@pytest.mark.parametrize("patch", [8, 16, 32])
@pytest.mark.parametrize("training", [False, True])
def test_the_masked_encoder_is_the_sparse_one(patch, training):
    encoder = stirred(untrained_encoder(3, 0)).double().requires_grad_(False).train(training)
    side = 64
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    n = side // patch
    visible = draw_visible(2, n, n, max(1, n * n // 5), seed=4)
    seen = x.where(visible.repeat_interleave(patch, -1).repeat_interleave(patch, -2), 0.0)
    levels = masked_features(encoder, seen, stage_masks(visible, patch, torch.float64))
    tolerance = 1e-5 if training else 1e-9  # in training the response norm sums in float32
    for k in range(2):
        wanted = sparse_pyramid(encoder, x[k], lambda r, c, k=k: bool(visible[k, 0, r // patch, c // patch]))
        for level, cells in zip(levels, wanted, strict=True):
            dense = torch.zeros_like(level[k])
            for (i, j), v in cells.items():
                dense[:, i, j] = torch.from_numpy(v)
            torch.testing.assert_close(level[k], dense, rtol=tolerance, atol=tolerance)
            assert len(cells) > 0 and (patch < 16 or len(cells) < dense[0].numel())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("patch", [8, 32])
def test_with_nothing_hidden_it_is_the_plain_encoder(training, patch):
    encoder = stirred(untrained_encoder(3, 0)).train(training)
    x = torch.randn(2, 3, 96, 64)
    visible = torch.ones(2, 1, 96 // patch, 64 // patch, dtype=torch.bool)
    for a, b in zip(masked_features(encoder, x, stage_masks(visible, patch)), encoder(x), strict=True):
        assert torch.equal(a, b)


def test_the_decoder_block_is_timms():
    theirs = stirred(ConvNeXtBlock(16, use_grn=True, conv_mlp=True, ls_init_value=None)).eval()
    ours = DecoderBlock(16).eval()
    names = {"conv_dw": "depthwise", "mlp.fc1": "expand", "mlp.fc2": "reduce", "mlp.grn": "grn"}
    state = {}
    for key, value in theirs.state_dict().items():
        for a, b in names.items():
            key = key.replace(f"{a}.", f"{b}.")
        state[key] = value
    ours.load_state_dict(state, strict=True)
    x = torch.randn(2, 16, 5, 4)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


# --- no leak --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [8, 16, 32, 64])
def test_hidden_pixels_have_exactly_no_influence(patch):
    """The gradient of every prediction and of every visible feature with respect to every hidden pixel is exactly 0."""
    model = autoencoder(patch=patch)
    side, n = 128, 128 // patch
    x = torch.randn(2, 3, side, side, requires_grad=True)
    visible = draw_visible(2, n, n, max(1, int(0.4 * n * n)), seed=1)
    pixels = visible.repeat_interleave(patch, -1).repeat_interleave(patch, -2).expand(-1, 3, -1, -1)
    (predicted,) = model(x, visible)
    assert predicted.shape == x.shape
    features = masked_features(model.encoder, x.where(pixels, 0.0), stage_masks(visible, patch))
    for out in (predicted, *features):
        (gradient,) = torch.autograd.grad((out * torch.randn(out.shape)).sum(), x, retain_graph=True)
        assert torch.equal(gradient[~pixels], torch.zeros_like(gradient[~pixels]))
        assert float(gradient[pixels].abs().max()) > 0


@pytest.mark.parametrize("value", [1e30, float("inf"), float("nan"), -7.0])
@pytest.mark.parametrize("patch", [8, 32])
def test_no_value_of_a_hidden_pixel_gets_through(value, patch):
    model = autoencoder(patch=patch)
    x = torch.randn(2, 3, 64, 64)
    visible = draw_visible(2, 64 // patch, 64 // patch, 1 if patch == 32 else 20, seed=3)
    pixels = visible.repeat_interleave(patch, -1).repeat_interleave(patch, -2)
    other = x.where(pixels, value)
    assert torch.equal(model(x, visible)[0], model(other, visible)[0])


def test_padding_repeats_no_hidden_pixel():
    """A chip of 40 pixels grows to 64: a repeated border would carry hidden pixels into visible patches."""
    model = autoencoder(patch=8)
    seen = []
    model.forward = lambda z, visible: seen.append((z, visible)) or [torch.zeros(2, 3, 64, 64)]
    model.errors(torch.randn(2, 3, 40, 40), seed=0)
    ((z, visible),) = seen
    assert z.shape[-2:] == (64, 64) and visible.shape == (2, 1, 8, 8)
    assert z[..., 40:, :].isnan().all() and z[..., :, 40:].isnan().all() and z[..., :40, :40].isfinite().all()


def test_a_target_that_is_no_input_is_not_seen():
    model = autoencoder(BOTH, [Target(S1)], inputs=S2)
    x = torch.randn(2, 5, 64, 64)
    visible = draw_visible(2, 2, 2, 2, seed=0)
    other = x.clone()
    other[:, 3:] = 99.0  # VV, VH
    other[:, 1] = 99.0  # B03, which is not read
    assert torch.equal(model(x, visible)[0], model(other, visible)[0])
    other[:, 0] = 99.0  # B04 is
    assert not torch.equal(model(x, visible)[0], model(other, visible)[0])


# --- masks and loss -------------------------------------------------------------------------------------------------


def test_the_mask_hides_as_many_patches_as_it_says():
    assert MaskedConfig().grid((224, 224)) == (7, 7, 19)  # ConvNeXt V2: int(49 * 0.4)
    assert MaskedConfig(ratio=0.7, patch=32).grid((160, 64)) == (5, 2, 3)  # 10 * (1 - 0.7) is not below 3
    assert MaskedConfig().grid((64, 64)) == (2, 2, 1)
    assert MaskedConfig(patch=8, ratio=0.01).grid((32, 32)) == (4, 4, 15)
    assert MaskedConfig(patch=64).grid((100, 100)) == (2, 2, 1)
    a = draw_visible(50, 7, 7, 19, seed=5)
    assert a.sum((1, 2, 3)).eq(19).all() and len({tuple(v.flatten().tolist()) for v in a}) == 50
    assert torch.equal(a, draw_visible(50, 7, 7, 19, seed=5)) and not torch.equal(a, draw_visible(50, 7, 7, 19, seed=6))
    often = draw_visible(2000, 3, 3, 4, seed=0).float().mean(0)
    assert (often - 4 / 9).abs().max() < 0.05  # no patch is preferred: 4.5 standard errors


def test_a_deep_cell_is_visible_if_any_pixel_below_it_is():
    visible = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    visible[0, 0, 5, 1] = True  # rows 40-47, columns 8-15 of 64 pixels
    masks = stage_masks(visible, 8)
    assert [tuple(m.shape[-2:]) for m in masks] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert [m.nonzero()[:, 2:].tolist() for m in masks[1:]] == [[[5, 1]], [[2, 0]], [[1, 0]]]
    assert masks[0].nonzero()[:, 2:].tolist() == [[10, 2], [10, 3], [11, 2], [11, 3]]


@pytest.mark.parametrize("settings", [{"patch": 12}, {"patch": 4}, {"patch": 48}, {"patch": 0}, {"ratio": 0.0},
                                      {"ratio": 1.0}, {"width": 0}, {"depth": 0}])  # fmt: skip
def test_settings_without_meaning_are_refused(settings):
    with pytest.raises(ValueError, match=r"expected|between 0 and 1"):
        MaskedConfig(**settings)


def test_one_patch_is_refused_with_what_to_do():
    with pytest.raises(ConfigError, match=r"one patch of 32.*patch: 8 or 16"):
        MaskedConfig().grid((32, 32))


def test_the_target_is_normalised_by_patch_and_band_over_finite_pixels():
    x = 5 + 3 * torch.randn(2, 3, 16, 32)
    x[:, 1] *= 1000
    x[0, 2, :9, 3] = float("nan")
    x[1, 0, 8:, 24:] = float("nan")  # a whole patch
    out = patch_normalised(x, 8)
    assert torch.equal(out.isnan(), x.isnan())
    for r in range(2):
        for c in range(4):
            a, b = x[..., 8 * r : 8 * r + 8, 8 * c : 8 * c + 8], out[..., 8 * r : 8 * r + 8, 8 * c : 8 * c + 8]
            for k in range(2):
                for band in range(3):
                    v = a[k, band][a[k, band].isfinite()].double()
                    w = (v - v.mean()) / (v.var(unbiased=False) + 1e-6).sqrt() if len(v) else v
                    torch.testing.assert_close(b[k, band][b[k, band].isfinite()].double(), w, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("normalise", [False, True])
def test_the_loss_is_the_mean_over_hidden_finite_pixels(normalise):
    model = autoencoder(patch=16, normalise=normalise)
    x = 3 + 2 * torch.randn(3, 3, 64, 64)
    x[0, 1, 5:40, 7:50] = float("nan")
    x[1] = float("nan")
    z = (x - model.mean) / model.std
    visible = draw_visible(3, 4, 4, 6, seed=11)
    predicted = model(z, visible)[0].detach()
    truth = patch_normalised(z, 16) if normalise else z
    total, count = 0.0, 0
    for k, band, i, j in truth.isfinite().nonzero().tolist():
        if not visible[k, 0, i // 16, j // 16]:
            total += float(predicted[k, band, i, j] - truth[k, band, i, j]) ** 2
            count += 1
    errors = model.errors(x, seed=11)
    assert errors.shape == (3, 1, 2) and int(errors[..., 1].sum()) == count and errors[1].sum() == 0
    assert loss_of(model, x, 11) == pytest.approx(total / count, rel=1e-4)
    assert loss_of(model, x, 12) != pytest.approx(total / count, rel=1e-4)


def test_a_perfect_prediction_has_no_loss_and_prediction_pixels_lie_where_the_targets_do():
    model = autoencoder(patch=16, normalise=False)
    x = torch.randn(2, 3, 64, 96)
    model.forward = lambda z, visible: [z.clone()]
    assert loss_of(model, x, 0) == 0
    model.forward = lambda z, visible: [z.flip(-1)]
    assert loss_of(model, x, 0) > 0.5


def test_each_cell_predicts_its_own_pixels():
    model = autoencoder()
    z = torch.zeros(1, 24, 2, 3)
    z[0, :, 0, 2] = torch.randn(24)
    model.decoder = torch.nn.Sequential()
    model.decoder.forward = lambda _: z
    with torch.no_grad():
        model.heads[0].bias.zero_()
        (predicted,) = model(torch.randn(1, 3, 64, 96), torch.ones(1, 1, 2, 3, dtype=torch.bool))
    rows, columns = predicted[0].ne(0).any(0).nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 31, 64, 95) and len(rows) == 32 * 32


def test_a_batch_with_nothing_to_predict_has_loss_zero_and_finite_gradients():
    model = autoencoder()
    loss = model.own_loss(torch.full((2, 3, 64, 64), float("nan")), seed=0)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_nodata_spoils_no_gradient():
    model = autoencoder().train()
    x = torch.randn(2, 3, 96, 96)
    x[0, :, 10:30, 20:60] = float("nan")
    x[1, 1, 0, 0] = float("inf")
    model.own_loss(x, seed=0).backward()
    gradients = {k: p.grad for k, p in model.named_parameters()}
    assert all(g is not None and bool(g.isfinite().all()) and bool((g != 0).any()) for g in gradients.values())


def test_several_targets_are_weighed_and_an_absent_one_is_left_out():
    model = autoencoder(BOTH, [Target(S2, 1.0), Target(S1, 3.0)], inputs=S2)
    x = torch.randn(2, 5, 64, 64)
    (a, m), (b, n) = model.errors(x, seed=1).sum(0).detach().tolist()
    assert m == n > 0
    assert loss_of(model, x, 1) == pytest.approx((a / m + 3 * b / n) / 4, rel=1e-5)
    x[:, 3:] = float("nan")  # no radar
    assert loss_of(model, x, 1) == pytest.approx(a / m, rel=1e-5)


def test_targets_are_found_by_name():
    model = autoencoder(BOTH, [Target(S1)], inputs=S2)
    assert model.inputs == [2, 0] and model.targets == [[3, 4]]


@pytest.mark.parametrize(("inputs", "error", "says"), [
    ("sentinel-2-l2a:B08@reflectance", BandError, "not among the data's bands"),
    ("sentinel-2-l2a:B04@dn-1e4", UnitError, "declare it in that unit"),
    ("sentinel-1:VV,VV@db", BandError, "duplicate band"),
])  # fmt: skip
def test_a_band_that_is_not_there_or_of_another_unit_is_refused(inputs, error, says):
    with pytest.raises(error, match=says):
        autoencoder(BOTH, inputs=BandSet.parse(inputs))


def test_an_encoder_of_other_channels_is_refused():
    with pytest.raises(BandError, match="reads 4 channels"):
        MaskedAutoencoder(ConvNeXtV2Atto(4), RGB, statistics(3), RGB, [Target(RGB)], MaskedConfig(width=8))


def test_a_target_without_weight_is_refused():
    with pytest.raises(ConfigError, match="above 0"):
        Target(RGB, 0.0)
    with pytest.raises(ConfigError, match="at least one target"):
        MaskedAutoencoder(ConvNeXtV2Atto(3), RGB, statistics(3), RGB, [], MaskedConfig(width=8))
