"""READ THIS FIRST. The whole idea of EoS-FM (arXiv 2511.21523) in one forward:

    pixels with named bands -> views each specialist can read -> frozen specialists -> fused pyramid

Plans are made once, in the constructor, from names. A specialist that cannot read the input is listed in
`Ensemble.skipped` with the reason (or is an error, as the caller chooses); nothing is decided per batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from eosfm.adaptation import AdaptationPlan, adapt, plan_views, require_readable
from eosfm.bands import BandSet
from eosfm.contracts import AdaptationError, BandError, CardError, Pyramid, ZooError, known
from eosfm.fusion.fuse import Fusion, Normalise, make_fusion
from eosfm.fusion.selection import SelectionConfig, TopK
from eosfm.rules import DEFAULT_RULES
from eosfm.seeding import seeded
from eosfm.specialists.backbone import AnyEncoder
from eosfm.specialists.card import SpecialistCard
from eosfm.specialists.encoder import MIN_SIZE
from eosfm.statistics import BandStatistics

Specialist = tuple[AnyEncoder, SpecialistCard]


@dataclass(frozen=True)
class Skipped:
    """A specialist that cannot read the input, or lost a view of it for want of statistics, and why."""

    specialist: str
    reason: str


class Ensemble(nn.Module):
    """Frozen specialists and a fusion, for one declared input. Satisfies the `Encoder` protocol.

    Args:
        specialists: frozen encoders with their cards (`eosfm.specialists.store.load_specialist`).
        bands: what channel ``i`` of the input is, and in which unit.
        statistics: the input's own mean and std; needed by views into another modality or an inconvertible unit.
        rules: names of the adaptation rules to use; see `eosfm.rules`.
        fusion: "conv1x1" (the paper's), "mlp", "concat", "sum" or "product".
        normalise: affine-free normalisation of each view before the fusion: "none" (the paper's), "layer" or "batch".
        on_skip: "list" collects specialists that cannot read the input in `skipped`; "raise" makes them an error.
        seed: of the fusion's initial weights.

    Raises:
        BandError: a band twice in ``bands``, or no specialist can read it.
        AdaptationError: an unknown rule, or (``on_skip="raise"``) a specialist that cannot read the input.
        ZooError: two specialists of one name.
        CardError: an encoder with the card of another.
        ConfigError: an unknown fusion, or one that cannot join maps of different widths.
    """

    gates: Tensor
    selector: TopK | None

    def __init__(
        self,
        specialists: Sequence[Specialist],
        bands: BandSet,
        *,
        statistics: BandStatistics | None = None,
        rules: Sequence[str] = DEFAULT_RULES,
        fusion: str = "conv1x1",
        normalise: Normalise = "none",
        on_skip: Literal["list", "raise"] = "list",
        seed: int = 0,
    ) -> None:
        super().__init__()
        names = [card.name for _, card in specialists]
        if len(set(names)) != len(names):
            raise ZooError(f"two specialists of one name among {', '.join(sorted(names))}")
        if statistics is not None:
            statistics.require_channels(len(bands), "input")
        self.bands, self.statistics, self.rules = bands, statistics, tuple(rules)
        self.views, self.skipped = [], []
        self.cards: list[SpecialistCard] = []
        encoders: list[AnyEncoder] = []
        for encoder, card in specialists:
            if encoder.in_channels != len(card.bands):
                raise CardError(
                    f"specialist {card.name}: the card names {len(card.bands)} bands, the encoder reads {encoder.in_channels}"
                )
            plans, reason = plan_views(card.name, card.bandset(), card.statistics, bands, statistics, rules)
            self.views += plans
            if plans:
                encoders.append(encoder)
                self.cards.append(card)
            if reason:
                self.skipped.append(Skipped(card.name, reason))
        readable = {c.name for c in self.cards}
        reasons = [f"{s.specialist}: {s.reason}" for s in self.skipped if s.specialist not in readable]
        if on_skip == "raise" and reasons:
            raise AdaptationError("these specialists cannot read the input:\n  " + "\n  ".join(reasons))
        require_readable(self.views, reasons)
        self.encoders = nn.ModuleList(encoders)
        self._encoder_of = [[c.name for c in self.cards].index(v.specialist) for v in self.views]
        widths = [encoders[e].out_channels for e in self._encoder_of]
        with seeded(seed):
            self.fusion: Fusion = make_fusion(fusion, len(self.views), normalise, widths)
        self.register_buffer("gates", torch.ones(len(self.views)), persistent=False)
        self.register_module("selector", None)
        self.fusion_trained = False

    @property
    def out_channels(self) -> list[int]:
        """Channels per level, fine to coarse."""
        return self.fusion.out_channels

    def forward(self, x: Tensor) -> Pyramid:
        """Fused features of ``x`` ``(b, len(bands), h, w)``: four levels at strides 4/8/16/32.

        Raises:
            BandError: ``x`` has another number of channels than `bands`, is not floating point, or has sides that are
                no multiple of 32.
        """
        return self.fuse(self.encode(x))

    def encode(self, x: Tensor) -> list[Pyramid]:
        """One pyramid per view, before normalisation, gates and fusion. Frozen: equal input, equal output."""
        self._check(x)
        with torch.no_grad():
            return [self.encoders[e](adapt(x, plan)) for e, plan in zip(self._encoder_of, self.views, strict=True)]

    def fuse(self, pyramids: Sequence[Pyramid]) -> Pyramid:
        """The trainable half of `forward`, for features that were computed before."""
        fused: Pyramid = self.fusion(pyramids, self.gates_now())
        return fused

    def gates_now(self) -> Tensor:
        """The gates ``(views,)`` of one forward: what is ablated, and what a selector draws."""
        return self.gates if self.selector is None else self.gates * self.selector()

    def select(self, config: SelectionConfig) -> TopK:
        """Learn, while fusion and head are trained, which ``config.keep`` specialists to keep; then `pruned` to them."""
        self.selector = TopK([c.name for c in self.cards], self._encoder_of, config)
        return self.selector

    def ablate(self, names: Iterable[str]) -> None:
        """Switch off the specialists or views called ``names``, exactly at the fusion; ``ablate([])`` restores all."""
        off = self._views_of(names)
        self.gates = torch.tensor([0.0 if v in off else 1.0 for v in range(len(self.views))]).to(self.gates)

    def pruned(self, keep: Iterable[str]) -> Ensemble:
        """A smaller ensemble of the specialists or views ``keep``: equal output to ablating all others, no trace of them."""
        kept = sorted(self._views_of(keep))
        if not kept:
            raise AdaptationError("pruning must keep at least one view")
        used = sorted({self._encoder_of[v] for v in kept})
        return self._with(
            [self.views[v] for v in kept], list(self.skipped), [self.cards[e] for e in used],
            [self.encoders[e] for e in used], [used.index(self._encoder_of[v]) for v in kept],
            self.fusion.narrowed(kept), self.gates[kept].clone(),
        )  # fmt: skip

    def extended(self, specialists: Sequence[Specialist]) -> Ensemble:
        """A larger ensemble with ``specialists`` added: the same output, because their fusion weights start at 0.

        Raises:
            ConfigError: a fusion that has no weights to start at 0.
            ZooError: a name that is already there.
            BandError: none of ``specialists`` can read the input.
        """
        more = Ensemble(specialists, self.bands, statistics=self.statistics, rules=self.rules)
        if twice := {c.name for c in self.cards} & {c.name for c in more.cards}:
            raise ZooError(f"the ensemble already has {', '.join(sorted(twice))}")
        return self._with(
            [*self.views, *more.views], [*self.skipped, *more.skipped], [*self.cards, *more.cards],
            [*self.encoders, *more.encoders], [*self._encoder_of, *(len(self.cards) + e for e in more._encoder_of)],
            self.fusion.widened(more.fusion.widths), torch.cat([self.gates, more.gates.to(self.gates)]),
        )  # fmt: skip

    def _with(
        self, views: list[AdaptationPlan], skipped: list[Skipped], cards: list[SpecialistCard],
        encoders: Sequence[nn.Module], encoder_of: list[int], fusion: Fusion, gates: Tensor,
    ) -> Ensemble:  # fmt: skip
        """This ensemble for the same input, with other views; without a selector."""
        new = object.__new__(Ensemble)
        nn.Module.__init__(new)
        new.bands, new.statistics, new.rules = self.bands, self.statistics, self.rules
        new.views, new.skipped, new.cards = views, skipped, cards
        new.encoders, new._encoder_of = nn.ModuleList(encoders), encoder_of
        new.fusion, new.fusion_trained = fusion, self.fusion_trained
        new.register_buffer("gates", gates, persistent=False)
        new.register_module("selector", None)
        return new

    def _views_of(self, names: Iterable[str]) -> set[int]:
        names = list(names)
        valid = {v.specialist for v in self.views} | {v.name for v in self.views}
        if unknown := [n for n in names if n not in valid]:
            raise ZooError(f"no active specialist or view {', '.join(map(repr, unknown))}; {known(valid)}")
        return {i for i, v in enumerate(self.views) if v.specialist in names or v.name in names}

    def _check(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != len(self.bands):
            raise BandError(f"expected (batch, {len(self.bands)}, h, w) for {self.bands}; got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise BandError(f"expected floating point values in the declared units, got {x.dtype}; call x.float()")
        h, w = x.shape[-2:]
        if h % MIN_SIZE or w % MIN_SIZE or not h or not w:
            up = tuple(max(1, -(-s // MIN_SIZE)) * MIN_SIZE for s in (h, w))
            raise BandError(
                f"image size ({h}, {w}) is no multiple of {MIN_SIZE}; pad it to {up} (eosfm.specialists.encoder.pad)"
            )
