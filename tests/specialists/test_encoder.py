"""The frozen encoder: a pyramid at strides 4/8/16/32, weights that load whole or not at all, and frozen that means frozen."""

from __future__ import annotations

import copy

import pytest
import torch

from eosfm.contracts import PYRAMID_CHANNELS, PYRAMID_STRIDES, CardError
from eosfm.specialists.encoder import ConvNeXtV2Atto, FrozenEncoder, untrained_encoder
from helpers import equal, make_encoder, random_weights


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_the_pyramid_has_the_promised_shapes(size: tuple[int, int]):
    encoder = make_encoder(2)
    maps = encoder(torch.zeros(1, 2, *size))
    assert [m.shape for m in maps] == [
        (1, c, size[0] // s, size[1] // s) for c, s in zip(PYRAMID_CHANNELS, PYRAMID_STRIDES, strict=True)
    ]
    assert encoder.out_channels == [m.shape[1] for m in maps]


def test_weights_round_trip_bit_by_bit():
    a, b = make_encoder(3, 1), FrozenEncoder(3)
    b.load_tensors(a.tensors(), "b")
    x = torch.randn(1, 3, 32, 32)
    assert equal(a(x), b(x))


def test_frozen_means_no_gradient_and_evaluation_mode_whatever_is_called_around_it():
    encoder = copy.deepcopy(make_encoder(3))
    around = torch.nn.Sequential(encoder)
    for call in (around.train, encoder.train, around.eval, lambda: encoder.train(True)):
        call()
        assert not any(m.training for m in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    assert around.train().training, "only the encoder stays in evaluation mode"


def test_an_unfrozen_encoder_can_be_trained():
    encoder = ConvNeXtV2Atto(3)
    assert encoder.training
    assert all(p.requires_grad for p in encoder.parameters())


def test_untrained_encoders_depend_on_the_seed_and_leave_the_random_state_alone():
    state = torch.get_rng_state()
    a, b, c = untrained_encoder(3, 1), untrained_encoder(3, 1), untrained_encoder(3, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, b.tensors()[k]) for k, v in a.tensors().items())
    assert not torch.equal(a.tensors()["stem_0.weight"], c.tensors()["stem_0.weight"])


def wrong(change) -> str:
    """The message for damaged weights, after checking that nothing was half loaded."""
    encoder = FrozenEncoder(3)
    before = copy.deepcopy(encoder.tensors())
    tensors = random_weights(3, 5)
    change(tensors)
    with pytest.raises(CardError) as e:
        encoder.load_tensors(tensors, "specialist x")
    assert all(torch.equal(v, before[k]) for k, v in encoder.tensors().items()), "half loaded"
    assert "specialist x" in str(e.value)
    return str(e.value)


def test_missing_extra_and_misshapen_tensors_are_named():
    last = "stages_3.blocks.1.mlp.fc2.weight"
    assert f"missing {last}" in wrong(lambda t: t.pop(last))
    assert "extra head.weight" in wrong(lambda t: t.update({"head.weight": torch.zeros(1)}))
    assert f"{last}: shape (320, 1), expected" in wrong(lambda t: t.update({last: torch.zeros(320, 1)}))
    assert "and " in wrong(lambda t: t.clear())


@pytest.mark.parametrize("channels", [1, 2, 13])
def test_another_stem_is_named_with_both_numbers(channels: int):
    text = wrong(lambda t: t.update({"stem_0.weight": torch.zeros(40, channels, 4, 4)}))
    assert "the card names 3 bands" in text
    assert f"reads {channels} channels" in text


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(bad: float):
    def spoil(t):
        t["stages_2.blocks.0.norm.weight"][3] = bad

    assert "stages_2.blocks.0.norm.weight: contains NaN or Inf" in wrong(spoil)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_of_another_kind_of_number_are_refused(dtype: torch.dtype):
    def cast(t):
        t["stem_0.weight"] = torch.ones_like(t["stem_0.weight"]).to(dtype)

    assert f"stem_0.weight: stored as {dtype}" in wrong(cast)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_and_double_precision_weights_are_read(dtype: torch.dtype):
    tensors = {k: v.to(dtype) for k, v in random_weights(3, 5).items()}
    encoder = FrozenEncoder(3)
    encoder.load_tensors(tensors, "x")
    own = encoder.tensors()["stem_0.weight"]
    assert own.dtype == torch.float32
    assert torch.equal(own, tensors["stem_0.weight"].float())
