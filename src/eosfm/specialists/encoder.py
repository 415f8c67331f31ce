"""The specialists' architecture: timm's ConvNeXtV2-Atto as a frozen feature pyramid. The only module that imports timm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import timm
import torch
import torch.nn.functional as F
from timm.layers.grn import GlobalResponseNorm
from torch import Tensor, nn

from eosfm.contracts import PYRAMID_CHANNELS, CardError, ConfigError, CorruptArtifact, Pyramid, known
from eosfm.seeding import seeded

ARCHITECTURE = "convnextv2_atto"
MIN_SIZE = 32
"""Smallest side the deepest stage can see; sizes that are no multiple of it would lose their border."""
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class ResponseNorm(GlobalResponseNorm):  # type: ignore[misc]
    """timm's global response norm; while training, the same function in fewer passes over memory.

    ``vector_norm`` over two axes is slow in PyTorch, forward and backward; and ``x + bias + weight * x * n`` is one
    multiply-add when ``1 + weight * n``, a number per channel, is computed first. A training step on a CPU takes 0.75
    of the time. In evaluation mode it is timm's code, equal to the last bit.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``(b, c, h, w)`` with each channel scaled by its share of the image's total response."""
        if not self.training:
            y: Tensor = super().forward(x)
            return y
        energy = x.float().square().sum(self.spatial_dim, keepdim=True)
        norm = energy.clamp_min(1e-30).sqrt()  # the square root has no gradient at 0
        relative = norm / (norm.mean(self.channel_dim, keepdim=True) + self.eps)
        scale = (1 + self.weight.view(self.wb_shape) * relative).to(x.dtype)
        return torch.addcmul(self.bias.view(self.wb_shape).to(x.dtype), x, scale)


class ConvNeXtV2Atto(nn.Module):
    """ConvNeXtV2-Atto (Woo et al. 2023) without head, giving a `Pyramid`.

    Its parameters are exactly those of ``timm.create_model("convnextv2_atto", features_only=True)``, under the same
    names: 3,386,760 with three channels and 640 more for each further one.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.body: nn.Module = timm.create_model(
            ARCHITECTURE, pretrained=False, features_only=True, in_chans=in_channels
        )
        for module in self.body.modules():
            if type(module) is GlobalResponseNorm:
                module.__class__ = ResponseNorm  # same weights, same names
        self.in_channels = in_channels

    @property
    def out_channels(self) -> list[int]:
        return list(PYRAMID_CHANNELS)

    def forward(self, x: Tensor) -> Pyramid:
        """Features of ``x`` ``(b, in_channels, h, w)``, ``h`` and ``w`` multiples of 32, at strides 4/8/16/32."""
        return list(self.body(x))

    def tensors(self) -> dict[str, Tensor]:
        """The weights under timm's feature-list names, on the CPU, ready to be stored."""
        return {k: v.detach().cpu().contiguous() for k, v in self.body.state_dict().items()}

    def load_tensors(self, tensors: dict[str, Tensor], whose: str) -> None:
        """Copy ``tensors`` in; raises `CardError` naming every missing, extra or wrongly shaped one. Nothing half loads."""
        own = self.body.state_dict()
        stem = tensors.get("stem_0.weight")
        if stem is not None and stem.ndim == 4 and stem.shape[1] != self.in_channels:
            raise CardError(
                f"{whose}: the card names {self.in_channels} bands but the weights' stem reads {stem.shape[1]} channels; "
                "the card or the weights belong to another specialist"
            )
        require_weights(own, tensors, ARCHITECTURE, whose)
        self.body.load_state_dict(tensors, strict=True)


def require_weights(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], architecture: str, whose: str) -> None:
    """`CardError` unless ``tensors`` are finite floats under the very names and shapes of ``own``; says which are not."""
    problems = [f"missing {k}" for k in own.keys() - tensors.keys()]
    problems += [f"extra {k}" for k in tensors.keys() - own.keys()]
    problems += [
        f"{k}: shape {tuple(tensors[k].shape)}, expected {tuple(v.shape)}"
        for k, v in own.items()
        if k in tensors and tensors[k].shape != v.shape
    ]
    problems += [f"{k}: stored as {v.dtype}" for k, v in tensors.items() if v.dtype not in _FLOATS]
    problems += [
        f"{k}: contains NaN or Inf" for k, v in tensors.items() if v.dtype in _FLOATS and not v.isfinite().all()
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:4]) + (f" and {len(problems) - 4} more" if len(problems) > 4 else "")
        raise CardError(f"{whose}: these are not {architecture} weights: {shown}")


class FrozenEncoder(ConvNeXtV2Atto):
    """A specialist in use: no gradients, and `eval()` stays on whatever ``train()`` is called around it."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenEncoder:  # noqa: ARG002
        """Stay in evaluation mode: frozen means frozen. ``mode`` is ignored on purpose."""
        super().train(False)
        return self


def untrained_encoder(in_channels: int, seed: int) -> ConvNeXtV2Atto:
    """A randomly initialised encoder, reproducible by ``seed``, leaving the global random state as it was."""
    with seeded(seed):
        return ConvNeXtV2Atto(in_channels)


def fcmae_tensors() -> dict[str, Tensor]:
    """The weights of ConvNeXt V2's masked pretraining on ImageNet; see `timm_tensors`. Their licence is CC BY-NC 4.0."""
    try:
        return timm_tensors(f"{ARCHITECTURE}.fcmae")
    except ConfigError as e:
        raise ConfigError(f"{e} Or choose init: random, or init: a specialist of your zoo.") from None


def timm_tensors(name: str) -> dict[str, Tensor]:
    """The weights that timm publishes as ``name`` ("convnextv2_atto.fcmae"), under our names; see `published_tensors`.

    Raises:
        ConfigError: not ConvNeXtV2-Atto.
    """
    return feature_names(published_tensors(name, f"{ARCHITECTURE}.*"))


def published_tensors(name: str, which: str) -> dict[str, Tensor]:
    """The weights that timm publishes as ``name``, one of ``which`` (a pattern), under its names, from its place on the Hub.

    They are read as safetensors; timm would fall back to a pickle.

    Raises:
        ConfigError: unknown to timm, or neither cached nor to be had; nothing starts at random instead.
        CorruptArtifact: what came is not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = published_file(name, which)
    try:
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    except (SafetensorError, OSError, ValueError) as e:
        raise CorruptArtifact(f"{path}: not a valid safetensors file: {e}. Remove it and fetch it again.") from None


def published_file(name: str, which: str) -> str:
    """Where the file of `published_tensors` lies in the cache, fetched if it must be; see there for errors."""
    from huggingface_hub import hf_hub_download

    names = timm.list_pretrained(which)
    if name not in names:
        raise ConfigError(f"timm has no weights {name!r} of {which.removesuffix('.*')}; {known(names)}")
    source = timm.get_pretrained_cfg(name).hf_hub_id
    try:
        return str(hf_hub_download(source, "model.safetensors"))
    except (OSError, ValueError) as e:  # every way in which the Hub and its cache can fail
        raise ConfigError(
            f"the weights {name} are not in the cache and could not be fetched from huggingface.co/{source} "
            f"({type(e).__name__}). On a machine with network run: hf download {source} model.safetensors - and copy its "
            "cache (HF_HOME) here."
        ) from None


def feature_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of a whole timm model (``stem.0.weight``) as those of its feature list (``stem_0.weight``), without head."""
    out = {}
    for name, tensor in tensors.items():
        first, _, rest = name.partition(".")
        if first in ("stem", "stages"):
            number, _, tail = rest.partition(".")
            out[f"{first}_{number}.{tail}"] = tensor
        elif first not in ("head", "norm_pre"):
            out[name] = tensor
    return out


def pad(x: Tensor) -> Tensor:
    """``x`` grown on the right and bottom to multiples of 32 by repeating the border; ``pad(x)[..., :h, :w] == x``."""
    h, w = x.shape[-2:]
    down, right = -h % MIN_SIZE, -w % MIN_SIZE
    return F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x


@dataclass(frozen=True)
class PublishedInput:
    """What timm says of the images that a network was trained on."""

    mean: tuple[float, ...]
    """of values from 0 to 1"""
    std: tuple[float, ...]
    side: int
    version: str
    """timm's"""


def published_input(name: str) -> PublishedInput:
    """How timm feeds ``name`` ("resnet50.a1_in1k", or without the tag: its default weights).

    Raises:
        ConfigError: timm has no such architecture, or no such weights of it.
    """
    architecture, _, tag = name.partition(".")
    tags = timm.list_pretrained(f"{architecture}.*") if timm.is_model(architecture) else []
    cfg = timm.get_pretrained_cfg(architecture if not tag else name) if tags and (not tag or name in tags) else None
    if cfg is None:
        near = tags or timm.list_models(f"*{architecture[:40]}*", pretrained=True)[:12]
        raise ConfigError(
            f"timm has no weights {name!r}; {known(near or timm.list_models('resnet*', pretrained=True)[:12])}"
        )
    return PublishedInput(tuple(cfg.mean), tuple(cfg.std), int(cfg.input_size[-1]), str(timm.__version__))


def other_architecture(
    name: str, in_channels: int, image_size: int, levels: Sequence[int] | None = None, weights: str | None = None
) -> nn.Module:
    """A network called ``name``, of another architecture than ours: a module that gives a list of maps.

    Args:
        name: as timm calls it, without a tag: "resnet18".
        in_channels: that it reads.
        image_size: side of the images it was trained on, where it has position tables for them. Where timm can, other
            sizes are accepted too.
        levels: which of its maps, by number in ``feature_info.info``; None takes timm's default.
        weights: a safetensors file of timm's whole network, which timm fits in; None leaves random weights.

    Raises:
        ConfigError: timm has no such architecture, or none that gives feature maps for such an image.
    """
    if "." in name or not timm.is_model(name):
        near = timm.list_models(f"*{name[:40]}*")[:12] or timm.list_models("resnet*")[:12]
        raise ConfigError(f"timm has no architecture {name[:80]!r}; for example {', '.join(near)}")
    chosen: dict[str, object] = {} if levels is None else {"out_indices": tuple(levels)}
    if weights is not None:
        chosen |= {"pretrained_cfg_overlay": {"file": weights, "hf_hub_id": None, "url": ""}}
    sized = {"img_size": image_size}
    # ViT and newer Swin say dynamic_img_size, older Swin strict_img_size; convolutions know neither.
    for options in ({**sized, "dynamic_img_size": True}, {**sized, "strict_img_size": False}, sized, {}):
        try:
            made: nn.Module = timm.create_model(
                name, pretrained=weights is not None, features_only=True, in_chans=in_channels, **chosen, **options
            )
            return made
        except TypeError:  # an option that this architecture does not have
            continue
        except (RuntimeError, ValueError, AssertionError, AttributeError, KeyError, IndexError) as e:
            reason = f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
            break
    else:
        reason = "its constructor takes none of the arguments that timm's others take"
    raise ConfigError(f"timm gives no feature maps of {name} for images of {image_size} pixels: {reason}")
