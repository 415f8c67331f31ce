"""Evaluation protocols as data: every setting carries its source, and says where sources contradict each other or are silent.

`PROTOCOLS` is the list; `settings` prints one. What a protocol cannot say in numbers is a sentence in `notes`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from eosfm.contracts import ConfigError, known
from eosfm.training.settings import FitConfig

_PAPER = "EoS-FM paper (arXiv 2511.21523v1) 4.1"
_TUTORIAL = "NeurIPS tutorial 'Geospatial Foundation Models', adaptation protocol of GEO-Bench-2"
_SPACE = "code of the GEO-Bench-2 leaderboard"
_ROWS = "the leaderboard's published rows (eosfm.benchmark.geobench2_published)"
_SILENT = "the sources at hand are silent"


@dataclass(frozen=True)
class Setting:
    """One row of a printed protocol."""

    name: str
    value: object
    source: str


@dataclass(frozen=True)
class Pangaea:
    """PANGAEA (Marsocci et al. 2024, arXiv 2412.04204) as the EoS-FM paper uses it: frozen encoder, UPerNet, one training."""

    name: str = field(default="pangaea", metadata={"source": "ours"})
    frozen: bool = field(default=True, metadata={"source": f"{_PAPER}; PANGAEA configs/train.yaml, finetune: false"})
    decoder: str = field(default="upernet", metadata={"source": f"{_PAPER}; PANGAEA configs/decoder/seg_upernet.yaml"})
    decoder_channels: int = field(default=512, metadata={"source": "PANGAEA configs/decoder/seg_upernet.yaml"})
    pooling: tuple[int, ...] = field(
        default=(1, 2, 3, 6), metadata={"source": "PANGAEA pangaea/decoders/upernet.py: the sides of the pooled grids"}
    )
    dropout: float = field(default=0.1, metadata={"source": "PANGAEA pangaea/decoders/upernet.py"})
    optimiser: str = field(default="adamw", metadata={"source": "PANGAEA configs/optimizer/adamw.yaml"})
    learning_rate: float = field(default=1e-4, metadata={"source": "PANGAEA configs/optimizer/adamw.yaml"})
    betas: tuple[float, float] = field(
        default=(0.9, 0.999), metadata={"source": "PANGAEA configs/optimizer/adamw.yaml; also PyTorch's default"}
    )
    weight_decay: float = field(default=0.05, metadata={"source": "PANGAEA configs/optimizer/adamw.yaml"})
    milestones: tuple[float, ...] = field(
        default=(0.6, 0.9), metadata={"source": "PANGAEA configs/lr_scheduler/multi_step_lr.yaml: shares of all steps"}
    )
    decay: float = field(
        default=0.1, metadata={"source": "PyTorch's default of MultiStepLR; PANGAEA's configuration is silent"}
    )
    epochs: int = field(default=80, metadata={"source": f"{_PAPER}; PANGAEA configs/train.yaml"})
    batch_size: int = field(
        default=8,
        metadata={"source": f"{_PAPER}; contradicted by a snapshot of PANGAEA configs/train.yaml, which has 2"},
    )
    validate_every: int = field(
        default=5, metadata={"source": "PANGAEA configs/task/segmentation.yaml, in epochs; the paper is silent"}
    )
    selection: str = field(default="best validation mIoU", metadata={"source": _PAPER})
    precision: str = field(default="32", metadata={"source": "PANGAEA configs/task/segmentation.yaml"})
    seeds: tuple[int, ...] = field(
        default=(234,),
        metadata={
            "source": "PANGAEA configs/train.yaml: one seed; the paper is silent. One seed has no interval over seeds"
        },
    )
    normalisation: str = field(
        default="data set's mean and std per band; missing bands zero after that",
        metadata={
            "source": "PANGAEA pangaea/engine/data_preprocessor.py. Ours differs: views are standardised as eosfm routes "
            "prints, and a missing band is never a zero but a specialist that is left out"
        },
    )
    crop: str = field(
        default="random, to the encoder's input size",
        metadata={
            "source": "PANGAEA pangaea/engine/data_preprocessor.py; a fully convolutional encoder may take the chip whole"
        },
    )
    test_windows: str = field(
        default="sliding windows on an evenly spaced grid, logits averaged, batch of 1",
        metadata={"source": "PANGAEA pangaea/engine/evaluator.py"},
    )
    metric: str = field(default="miou-absent-zero", metadata={
        "source": "PANGAEA pangaea/engine/evaluator.py: one confusion matrix over the split, ignored pixels left out, "
        "TP / (row + column - TP + 1e-6), mean over all classes, so a class that never occurs counts as 0. "
        "Ours prints 'miou' (such classes left out) beside it"})  # fmt: skip
    label_fractions: tuple[float, ...] = field(
        default=(0.1, 0.5, 1.0),
        metadata={"source": "PANGAEA, limited_label_train 0.1 and 0.5; the EoS-FM paper v1 uses 1.0 only"},
    )
    label_strategy: Literal["stratified"] = field(
        default="stratified",
        metadata={"source": "PANGAEA pangaea/utils/subset_sampler.py; see eosfm.benchmark.subsets"},
    )
    notes: tuple[str, ...] = field(
        default=(
            "AI4SmallFarms: PANGAEA's configuration has num_classes 1, and its guide prescribes cross entropy, which over one "
            "logit is constant 0. Ours uses two classes and shows the constant predictor, so the column is not comparable.",
            "Published numbers carry points of noise (pangaea-bench issue 126: DOFA on HLS Burn Scars 86.04 against 80.63).",
        ),
        metadata={"source": "PANGAEA configs/dataset/ai4smallfarms.yaml, DATASET_GUIDE.md; pangaea-bench issue 126"},
    )

    def fit_config(self, seed: int) -> FitConfig:
        """The training of fusion and decoder. No warm-up, augmentation or gradient clipping: PANGAEA names none."""
        return FitConfig(
            epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate, weight_decay=self.weight_decay,
            warmup=0.0, schedule="steps", validate_every=min(self.validate_every, self.epochs), clip_gradients=0.0, seed=seed,
        )  # fmt: skip


@dataclass(frozen=True)
class GeoBench2:
    """GEO-Bench-2: linear head or U-Net, frozen and fully fine-tuned, five seeds, scores aggregated by `eosfm.benchmark.iqm`."""

    name: str = field(default="geobench2", metadata={"source": "ours"})
    modes: tuple[str, ...] = field(
        default=("frozen", "full fine-tuning"), metadata={"source": f"{_SPACE}, column frozen_or_full_ft"}
    )
    scene_head: str = field(default="linear", metadata={"source": f"{_TUTORIAL}: one linear layer with softmax"})
    pixel_decoder: str = field(default="unet", metadata={"source": f"{_TUTORIAL}: evenly spaced encoder features"})
    bands: str = field(
        default="all that fit the model, else the nearest by wavelength",
        metadata={
            "source": f"{_TUTORIAL}. Ours differs: rules by band name (eosfm.rules); a band is replaced only by a named rule"
        },
    )
    sar: tuple[str, ...] = field(
        default=("VV", "VH", "VV"),
        metadata={"source": f"{_TUTORIAL}; contradicted by the EoS-FM paper 3.1, which reads VV, VH, VH"},
    )
    modalities: str = field(
        default="Sentinel-2 only",
        metadata={"source": f"{_TUTORIAL}: both sensors only for TerraMind on BEN V2 and BioMassters"},
    )
    dates: str = field(
        default="mean", metadata={"source": f"{_TUTORIAL}; SatlasNet takes the maximum, PANGAEA linear or L-TAE"}
    )
    seeds: tuple[int, ...] = field(
        default=(0, 1, 2, 3, 4),
        metadata={"source": f"{_SPACE}, REQUIRED_SEEDS = 5; published: mostly 205, 913, 1829, 2007, 2254"},
    )
    trials: int = field(
        default=16,
        metadata={"source": f"{_SPACE}: default of n_trials; here a case asks for its trials, 0 unless it does"},
    )
    metrics: Mapping[str, str] = field(
        default_factory=lambda: {
            "segmentation": "miou", "classification": "accuracy", "multilabel": "f1-multilabel-macro", "regression": "rmse",
            "detection": "map-boxes", "instances": "map-masks",
        },
        metadata={"source": f"{_TUTORIAL}, evaluation metrics; whether F1 is macro or micro is not said: ours is macro"},
    )  # fmt: skip
    detection: str = field(
        default="faster-rcnn for boxes, mask-rcnn for instances, on a feature pyramid",
        metadata={"source": f"{_TUTORIAL}; TerraTorch's examples/confs/geobenchv2_detection, framework and necks"},
    )
    detection_channels: int = field(default=256, metadata={"source": "TerraTorch: FeaturePyramidNetworkNeck's default"})
    detection_score: float = field(
        default=0.5,
        metadata={
            "source": "TerraTorch's ObjectDetectionTask: predictions of at most so much are thrown away before mAP. Ours does so "
            "on the test split only: epochs and trials are chosen by the score of all predictions"
        },
    )
    detection_overlap: float = field(
        default=0.5,
        metadata={
            "source": "TerraTorch's ObjectDetectionTask: so are those that a surer one overlaps, whatever its class"
        },
    )
    label_fractions: tuple[float, ...] = field(
        default=(1.0,), metadata={"source": f"{_SPACE}, column data_percentages; which are asked for is not said"}
    )
    fine_tuning: str = field(
        default="all parameters, one optimiser, one learning rate",
        metadata={"source": "ours, the simplest: a lower rate for encoders is not in the sources at hand"},
    )
    decoder_channels: int = field(default=64, metadata={"source": f"ours: {_SILENT}"})
    epochs: int = field(default=50, metadata={"source": f"ours: {_SILENT}"})
    patience: int = field(
        default=10, metadata={"source": f"{_ROWS}: 10 in early_stop_patience, for maps and scenes; of detection empty"}
    )
    schedule: Literal["cosine"] = field(default="cosine", metadata={"source": f"ours: {_SILENT}"})
    warmup: float = field(default=0.05, metadata={"source": f"ours: {_SILENT}"})
    learning_rate: float = field(
        default=1e-4, metadata={"source": f"ours (PANGAEA's): {_SILENT}. Also the first trial's"}
    )
    weight_decay: float = field(
        default=0.01, metadata={"source": f"{_ROWS}: 0.01 in all of them, so it is not searched"}
    )
    batch_size: int = field(default=16, metadata={"source": f"ours: {_SILENT}. Also the first trial's"})
    detection_batch_size: int = field(
        default=8, metadata={"source": f"{_ROWS}: 8 in all of detection, batch_size_selection Fixed"}
    )
    search_learning_rate: tuple[float, float] = field(
        default=(5e-6, 1e-3),
        metadata={
            "source": f"{_ROWS}: the winners lie from 6.9e-6 to 1.0e-3; the bounds, drawn log-uniformly, are ours"
        },
    )
    search_batch_size: tuple[int, ...] = field(
        default=(8, 16, 32), metadata={"source": f"{_ROWS}: the winners' (HPO); of detection it is fixed"}
    )
    search_choice: str = field(
        default="best validation score on one seed; the test split is not looked at",
        metadata={"source": f"ours: {_SILENT}. The leaderboard has columns lr and batch_size for what won"},
    )

    def fit_config(self, seed: int) -> FitConfig:
        """The training of a case without trials, and the first of its trials."""
        return FitConfig(
            epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate, weight_decay=self.weight_decay,
            warmup=self.warmup, schedule=self.schedule, patience=self.patience, seed=seed,
        )  # fmt: skip


@dataclass(frozen=True)
class FrozenProbe:
    """torchgeo-bench's frozen probes on feature vectors: k-NN and logistic regression. What `eosfm.benchmark.probe` reads."""

    name: str = field(default="frozen-probe", metadata={"source": "ours"})
    neighbours: int = field(default=5, metadata={"source": "torchgeo-bench KNNClassifier(n_neighbors=5)"})
    distance: Literal["euclidean", "cosine"] = field(
        default="euclidean",
        metadata={"source": "torchgeo-bench knn.py: its CPU path is always L2; cosine exists on the GPU path only"},
    )
    vote: str = field(
        default="uniform, ties to the lower class",
        metadata={"source": "torchgeo-bench knn.py: argmax of counts, mean of multi-hot labels"},
    )
    penalties: tuple[float, ...] = field(
        default_factory=lambda: tuple(10.0 ** (-6 + 10 * i / 39) for i in range(40)),
        metadata={
            "source": "torchgeo-bench config.yaml, c_range [-6, 4, 40]: inverse penalties C, scikit-learn's scale"
        },
    )
    iterations: int = field(
        default=2000,
        metadata={"source": "torchgeo-bench main.py: 2000 in the sweep, 4000 in the final fit; ours 2000 in both"},
    )
    tolerance: float = field(
        default=1e-7,
        metadata={
            "source": "torchgeo-bench linear.py: a fit stops when the loss changes by less (tol 1e-6, a tenth of it). Of "
            "ill-conditioned features that is early: smaller is nearer to the optimum, and slower"
        },
    )
    refit_with_validation: bool = field(
        default=True,
        metadata={"source": "torchgeo-bench config.yaml, merge_val: true; C is chosen before, on validation only"},
    )
    standardise: bool = field(
        default=False,
        metadata={
            "source": "torchgeo-bench feeds features as they come; true divides by the training features' std per column"
        },
    )
    multilabel_average: Literal["micro", "macro"] = field(
        default="micro",
        metadata={"source": "torchgeo-bench: micro average precision; eosfm.training.scoring's map is the macro one"},
    )
    calibration: str = field(
        default="expected calibration error (L1), 15 equal bins", metadata={"source": "torchgeo-bench calibration.py"}
    )
    resamples: int = field(
        default=200, metadata={"source": "torchgeo-bench config.yaml, bootstrap: 200, of test predictions"}
    )
    seed: int = field(default=0, metadata={"source": "torchgeo-bench config.yaml; only the bootstrap is random"})

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.iterations < 1 or self.resamples < 1 or not 0 <= self.tolerance < 1:
            raise ConfigError(
                "frozen-probe: neighbours, iterations and resamples must be 1 or more, tolerance 0 to below 1"
            )
        if not self.penalties or not all(0 < c < math.inf for c in self.penalties):
            raise ConfigError(f"frozen-probe: penalties {self.penalties}; expected one or more positive numbers C")
        if self.multilabel_average not in ("micro", "macro"):
            raise ConfigError(f"frozen-probe: average {self.multilabel_average!r}; {known(['micro', 'macro'])}")
        if self.distance not in ("euclidean", "cosine"):
            raise ConfigError(f"frozen-probe: distance {self.distance!r}; {known(['euclidean', 'cosine'])}")


Protocol = Pangaea | GeoBench2 | FrozenProbe
PROTOCOLS: dict[str, Protocol] = {p.name: p for p in (Pangaea(), GeoBench2(), FrozenProbe())}


def protocol(name: str) -> Protocol:
    """The protocol called ``name``.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {name!r}; {known(PROTOCOLS)}")
    return PROTOCOLS[name]


def settings(of: Protocol) -> list[Setting]:
    """Every setting of a protocol with its value and source, in order."""
    return [Setting(f.name, getattr(of, f.name), f.metadata["source"]) for f in fields(of)]
