"""Frozen probes on feature vectors: k nearest neighbours and logistic regression, as torchgeo-bench does them.

Nothing is chosen on test samples: the penalty is picked on validation samples, then the regression is fitted once more on
training and validation samples together (`FrozenProbe.refit_with_validation`), and the test samples are looked at once.
`eosfm.benchmark.protocol.FrozenProbe` holds every number, with its source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from eosfm.benchmark.backbones import Backbone
from eosfm.benchmark.intervals import Interval, interval
from eosfm.benchmark.protocol import FrozenProbe
from eosfm.benchmark.scores import METRICS, confidence_table, confusion_table, multilabel_table, value
from eosfm.contracts import PYRAMID_STRIDES, DataError, Encoder, Pyramid
from eosfm.data.chips import ChipSet
from eosfm.ensemble import Ensemble
from eosfm.specialists.encoder import pad

Array = NDArray[Any]
TORCHGEO_BENCH = FrozenProbe()
SINGLE_SCORES = ("accuracy", "f1-macro", "ece")
SEVERAL_SCORES = ("map-micro", "map-macro", "f1-multilabel-micro", "ece-multilabel")
"""reported; the one that validation chooses by stands first, see `FrozenProbe.multilabel_average`"""


@dataclass(frozen=True)
class Features:
    """Feature vectors with labels, one row a sample.

    Raises:
        DataError: shapes that do not fit, features that are not finite, or labels that are no classes.
    """

    features: Array
    """``(n, d)`` float32"""
    labels: Array
    """``(n,)`` classes, or ``(n, k)`` 0/1 where a sample has several"""
    classes: int
    note: str = ""
    """what was pooled, for reports"""

    def __post_init__(self) -> None:
        x, y = self.features, self.labels
        shape = (len(x), self.classes) if self.several else (len(x),)
        if x.ndim != 2 or not x.size or tuple(y.shape) != shape:
            raise DataError(
                f"features {x.shape}, labels {y.shape}; expected (n, d) and {shape} for {self.classes} classes"
            )
        if not np.isfinite(x).all():
            raise DataError(f"{int((~np.isfinite(x).all(1)).sum())} of {len(x)} feature vectors are not finite")
        low, high = (0, 1) if self.several else (0, self.classes - 1)
        if y.min() < low or y.max() > high:
            raise DataError(f"labels {y.min()} to {y.max()}; expected {low} to {high}")
        object.__setattr__(self, "features", np.ascontiguousarray(x, dtype=np.float32))
        object.__setattr__(self, "labels", np.ascontiguousarray(y, dtype=np.int64))

    @property
    def several(self) -> bool:
        """Whether a sample may have several labels."""
        return self.labels.ndim == 2


@dataclass(frozen=True)
class ProbeResult:
    """What a probe predicts for the test samples, and how good that is."""

    method: Literal["knn", "linear"]
    probabilities: Array
    """``(n, k)``; of k-NN the share of neighbours"""
    predictions: Array
    """``(n,)`` classes, or ``(n, k)`` 0/1 at probability 0.5"""
    scores: Mapping[str, Interval]
    """the main score first; intervals over test samples only"""
    penalty: float | None
    """inverse penalty C that validation chose"""
    sweep: tuple[tuple[float, float], ...]
    """(C, validation score)"""
    unconverged: tuple[float, ...]
    """those C whose fit, in the sweep or at the end, used up its iterations before it met the tolerance"""
    fitted_on: int
    """samples"""


@torch.inference_mode()
def pooled_features(
    encoder: Encoder, chips: ChipSet, *, levels: Sequence[int] = tuple(range(len(PYRAMID_STRIDES))), batch_size: int = 32
) -> Features:  # fmt: skip
    """The mean over each level of the pyramid, side by side, as `eosfm.tasks.heads.SceneHead` sees a scene.

    Of an `Ensemble` whose fusion is not trained, the views' own pyramids are pooled: a random fusion would only blur them. So
    are the native maps of a named `Backbone`.

    Args:
        encoder: reads ``chips`` in their declared units (for a single specialist: an `Ensemble` of one).
        chips: scenes with one or several labels.
        levels: fine to coarse, 0-3.
        batch_size: chips at a time.

    Raises:
        DataError: a kind of task without scene labels, or a level that is not there.
    """
    if chips.kind not in ("classification", "multilabel"):
        raise DataError(f"{chips.name} is {chips.kind}; probes need scene labels (classification, multilabel)")
    if not levels or not set(levels) <= set(range(len(PYRAMID_STRIDES))):
        raise DataError(f"levels {tuple(levels)}; expected some of 0 to {len(PYRAMID_STRIDES) - 1}")
    by_view = isinstance(encoder, Ensemble | Backbone) and not encoder.fusion_trained
    if isinstance(encoder, torch.nn.Module):
        encoder.eval()
    rows, labels = [], []
    for i in range(0, len(chips), batch_size):
        x, y = chips.batch(range(i, min(i + batch_size, len(chips))))
        pyramids: list[Pyramid] = encoder.encode(pad(x)) if by_view else [encoder(pad(x))]  # type: ignore[attr-defined]
        rows.append(torch.cat([p[level].mean((-2, -1)) for p in pyramids for level in levels], 1).float().cpu().numpy())
        labels.append(y.numpy())
    what = "the pyramid"
    if by_view:
        what = (
            f"{len(encoder.views)} views, before the fusion"
            if isinstance(encoder, Ensemble)
            else "the network's own maps"
        )
    note = f"mean over each of levels {', '.join(map(str, levels))} of {what}"
    if isinstance(encoder, Backbone):
        note = f"{encoder.note}; {note}"
    return Features(np.concatenate(rows), np.concatenate(labels), len(chips.classes), note)


def knn_probe(train: Features, test: Features, protocol: FrozenProbe = TORCHGEO_BENCH) -> ProbeResult:
    """Votes of the nearest training samples (at most as many as there are); equal distances: the earlier sample.

    Raises:
        DataError: sets of other features or classes.
    """
    _require_alike(train, test)
    a, b = _prepared([train, test], protocol)
    if protocol.distance == "cosine":
        a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
    nearest = _nearest(a.astype(np.float64), b.astype(np.float64), min(protocol.neighbours, len(a)))
    votes = train.labels if train.several else np.eye(train.classes)[train.labels]
    return _result("knn", votes[nearest].mean(1), test, protocol, fitted_on=len(a))


def _nearest(train: Array, test: Array, k: int) -> Array:
    """``(len(test), k)`` rows of ``train``, nearest first."""
    out, squares = [], (train**2).sum(1)
    for i in range(0, len(test), 256):
        part = test[i : i + 256]
        out.append(
            np.argsort(squares - 2 * part @ train.T, axis=1, kind="stable")[:, :k]
        )  # |part|^2 is the same for all
    return np.concatenate(out)


def linear_probe(
    train: Features, validation: Features, test: Features, protocol: FrozenProbe = FrozenProbe()  # noqa: B008
) -> ProbeResult:  # fmt: skip
    """Logistic regression by L-BFGS: penalties swept on ``validation``, the best one (ties: the strongest) fitted again.

    Raises:
        DataError: sets of other features or classes.
    """
    _require_alike(train, validation)
    _require_alike(train, test)
    a, b, c = (torch.from_numpy(x) for x in _prepared([train, validation, test], protocol))
    main = _names(train, protocol)[0]
    sweep, unconverged, fit = [], [], None
    for penalty in sorted(protocol.penalties):
        fit = fit_logistic(a, train.labels, train.classes, penalty, protocol, fit)  # from the stronger penalty's
        if not fit.converged:
            unconverged.append(penalty)
        sweep.append((penalty, value(main, _table(main, fit.probabilities(b), validation))))
    best = max(sweep, key=lambda s: (s[1], -s[0]))[0]
    x, y = a, train.labels
    if protocol.refit_with_validation:
        x, y = torch.cat([a, b]), np.concatenate([train.labels, validation.labels])
    final = fit_logistic(x, y, train.classes, best, protocol)
    if not final.converged and best not in unconverged:
        unconverged.append(best)
    result = _result("linear", final.probabilities(c), test, protocol, fitted_on=len(x))
    return replace(result, penalty=best, sweep=tuple(sweep), unconverged=tuple(sorted(unconverged)))


@dataclass(frozen=True)
class Logistic:
    """A fitted regression. Classes without a training sample have probability 0."""

    weight: Tensor
    """``(present classes, d)``"""
    bias: Tensor
    present: tuple[int, ...]
    classes: int
    several: bool
    converged: bool

    def probabilities(self, x: Tensor) -> Array:
        """``(n, classes)`` for features ``(n, d)``."""
        z = (x @ self.weight.T + self.bias).double()
        out = np.zeros((len(x), self.classes))
        out[:, list(self.present)] = (z.sigmoid() if self.several else z.softmax(1)).numpy()
        return out


def fit_logistic(
    x: Tensor, labels: Array, classes: int, penalty: float, protocol: FrozenProbe = TORCHGEO_BENCH,
    start: Logistic | None = None,
) -> Logistic:  # fmt: skip
    """Minimise mean cross entropy + ``|weight|^2 / (2 C n)``, scikit-learn's objective divided by the samples.

    With several labels a sample: mean binary cross entropy, so that each class is a regression with that same C. The
    bias is not penalised. The objective is convex, so ``start`` saves time and changes the result by no more than stopping
    early does (`FrozenProbe.tolerance`). In the precision of ``x``.
    """
    several = labels.ndim == 2
    present = tuple(range(classes)) if several else tuple(int(c) for c in np.unique(labels))
    y = torch.from_numpy(labels).to(x.dtype) if several else torch.from_numpy(np.searchsorted(present, labels))
    terms = len(x) * len(present) if several else len(x)
    loss: Callable[[Tensor, Tensor], Tensor] = F.binary_cross_entropy_with_logits if several else F.cross_entropy
    if start is not None and start.present == present:
        weight, bias = start.weight.clone().requires_grad_(), start.bias.clone().requires_grad_()
    else:
        weight, bias = (
            x.new_zeros(len(present), x.shape[1]).requires_grad_(),
            x.new_zeros(len(present)).requires_grad_(),
        )
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=protocol.iterations, max_eval=30 * protocol.iterations, history_size=10,
        line_search_fn="strong_wolfe", tolerance_grad=1e-7, tolerance_change=protocol.tolerance,
    )  # fmt: skip

    def objective() -> Tensor:
        optimiser.zero_grad()
        out = loss(x @ weight.T + bias, y) + weight.square().sum() / (2 * penalty * terms)
        out.backward()  # type: ignore[no-untyped-call]
        return out

    with torch.enable_grad():
        optimiser.step(objective)  # type: ignore[no-untyped-call]
    used = optimiser.state[weight]["n_iter"]
    return Logistic(weight.detach(), bias.detach(), present, classes, several, converged=used < protocol.iterations)


def _prepared(parts: Sequence[Features], protocol: FrozenProbe) -> list[Array]:
    x = [p.features for p in parts]
    if not protocol.standardise:
        return x
    mean, std = x[0].mean(0), x[0].std(0)
    return [((v - mean) / np.where(std > 0, std, 1.0)).astype(np.float32) for v in x]


def _require_alike(a: Features, b: Features) -> None:
    one, two = ((p.features.shape[1], p.classes, p.several) for p in (a, b))
    if one != two:
        raise DataError(f"(features, classes, several labels): {one} to fit on, {two} to predict; expected the same")


def _names(part: Features, protocol: FrozenProbe) -> tuple[str, ...]:
    if not part.several:
        return SINGLE_SCORES
    main = f"map-{protocol.multilabel_average}"
    return (main, *(m for m in SEVERAL_SCORES if m != main))


def _table(metric: str, probabilities: Array, part: Features) -> Array:
    made = METRICS[metric].table
    if made == "multilabel":
        return multilabel_table(probabilities, part.labels)
    if made == "confidence":
        return confidence_table(probabilities, part.labels)
    return confusion_table(probabilities.argmax(1), part.labels, part.classes, ignore=None)


def _result(
    method: Literal["knn", "linear"], probabilities: Array, test: Features, protocol: FrozenProbe, fitted_on: int
) -> ProbeResult:
    scores = {
        m: interval([_table(m, probabilities, test)], METRICS[m].statistic, protocol.seed, protocol.resamples)
        for m in _names(test, protocol)
    }
    predictions = (probabilities > 0.5).astype(np.int64) if test.several else probabilities.argmax(1)
    return ProbeResult(method, probabilities, predictions, scores, None, (), (), fitted_on)
