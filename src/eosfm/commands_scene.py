"""The commands that read whole scenes: predict, embed. Importing this imports nothing heavy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eosfm.contracts import ConfigError
from eosfm.outcomes import Outcome, scene_outcome

if TYPE_CHECKING:
    from eosfm.engine.fused import Precision
    from eosfm.tasks.scene import SceneExport, SceneTaskModel

ENGINES = ("torch", "onnx", "openvino")
Bands = Annotated[
    str | None, typer.Option(help="The image's bands in file order: SENSOR:BAND,BAND@UNIT, joined by '+'.")
]
PrecisionName = Annotated[
    str | None, typer.Option(help="fp32 (the default), or bf16: faster on new CPUs, classes change in few pixels.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


def predict(
    model: Annotated[Path, typer.Argument(help="Folder of a task model, or of an export of one.")],
    image: Annotated[Path, typer.Argument(help="GeoTIFF scene of any size.")],
    output: Annotated[Path, typer.Argument(help="The map to write (cloud-optimised GeoTIFF).")],
    bands: Bands = None,
    nodata: Annotated[float | None, typer.Option(help="The scene's nodata value, if it does not declare it.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Pixels that neighbouring tiles share.")] = None,
    batch_size: Annotated[int, typer.Option(help="Tiles per model call; lower it when memory is short.")] = 8,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write class probabilities.")] = False,
    zoo: Annotated[Path | None, typer.Option(help="Where the specialists lie, if they moved.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="torch, or that of an exported folder: onnx, openvino. Default: the folder's own."),
    ] = None,
    precision: PrecisionName = None,
    allow_no_crs: Annotated[bool, typer.Option("--allow-no-crs", help="Accept a scene without georeference.")] = False,
    overwrite: Overwrite = False,
) -> Outcome:
    """Map a whole scene. GeoTIFF in, GeoTIFF out, in bounded memory; a killed run continues when started again."""
    from eosfm.bands import BandSet
    from eosfm.inference.predict import predict_scene

    mapper, colours = _mapper(model, engine, zoo, precision)
    report = predict_scene(
        mapper, image, output, bands=BandSet.parse(bands) if bands else None,
        overlap=overlap, batch_size=batch_size, nodata=nodata, overwrite=overwrite, allow_no_crs=allow_no_crs,
        probabilities=probabilities, colours=[(int(c[1:3], 16), int(c[3:5], 16), int(c[5:7], 16)) for c in colours] or None,
    )  # fmt: skip
    return scene_outcome(report, mapper.engine)


def _mapper(
    model: Path, engine: str | None, zoo: Path | None, precision: str | None
) -> tuple[SceneTaskModel | SceneExport, tuple[str, ...]]:
    """The task model or export in ``model``, and its classes' colours.

    Raises:
        ConfigError: ``engine`` is not what the folder runs on.
    """
    from eosfm.engine.exported import is_export, open_export
    from eosfm.tasks.scene import SceneExport, SceneTaskModel
    from eosfm.tasks.stored import load_task_model

    if engine not in (None, *ENGINES):
        raise ConfigError(f"unknown engine {engine!r}; known: {', '.join(ENGINES)}")
    if is_export(model):
        exported = open_export(model)
        if engine not in (None, exported.card.format):
            raise ConfigError(
                f"{model} is an export for {exported.card.format}; leave --engine out, or export it for {engine}"
            )
        if zoo is not None or precision is not None:
            raise ConfigError(
                f"{model} is an export, which holds its specialists and has a precision: leave --zoo and --precision out"
            )
        return SceneExport(exported), exported.card.colours
    if engine not in (None, "torch"):
        target = model.with_name(f"{model.name}-{engine}")
        raise ConfigError(
            f"{model} runs in PyTorch. Export it first: eosfm export {model} --to {target} --format {engine}; "
            f"then: eosfm predict {target} ..."
        )
    loaded, card = load_task_model(model, zoo)
    return SceneTaskModel(loaded, card.weights.sha256, _precision(precision), release=True), card.task.colours


def _precision(name: str | None) -> Precision:
    if name not in (None, "fp32", "bf16"):
        raise ConfigError(f"unknown precision {name!r}; known: fp32, bf16")
    return "bf16" if name == "bf16" else "fp32"


def embed(
    model: Annotated[
        Path,
        typer.Argument(
            help="Folder of a task model, of an ensemble with a trained or weightless fusion, or of an export of one."
        ),
    ],
    image: Annotated[Path, typer.Argument(help="GeoTIFF scene of any size.")],
    output: Annotated[Path, typer.Argument(help="The features to write, float32, one band per channel.")],
    level: Annotated[int, typer.Option(min=0, max=3, help="Pyramid level: 0 is stride 4, 3 is stride 32.")] = 0,
    bands: Bands = None,
    chip_size: Annotated[
        int | None, typer.Option(help="Tile side; default the model's. Features depend on it.")
    ] = None,
    nodata: Annotated[float | None, typer.Option(help="The scene's nodata value, if it does not declare it.")] = None,
    batch_size: Annotated[int, typer.Option(help="Tiles per model call.")] = 8,
    zoo: Annotated[Path | None, typer.Option(help="Where the specialists lie, if they moved.")] = None,
    precision: PrecisionName = None,
    allow_no_crs: Annotated[bool, typer.Option("--allow-no-crs", help="Accept a scene without georeference.")] = False,
    overwrite: Overwrite = False,
) -> Outcome:
    """Write the fused features of a scene. GeoTIFF in, feature GeoTIFF out."""
    from eosfm.bands import BandSet
    from eosfm.composition import MANIFEST, load, read_manifest
    from eosfm.engine.exported import is_export, open_export
    from eosfm.inference.predict import predict_scene
    from eosfm.inference.scene import bands_of
    from eosfm.tasks.model import fingerprint
    from eosfm.tasks.scene import SceneExport, SceneFeatures
    from eosfm.tasks.stored import TASK, load_task_model

    declared = BandSet.parse(bands) if bands else None
    if is_export(model):
        if chip_size is not None or zoo is not None or precision is not None:
            raise ConfigError(
                f"{model} is an export with a chip size, specialists and a precision of its own: leave all three out"
            )
        exported = SceneExport(open_export(model), level)
        return scene_outcome(
            predict_scene(
                exported, image, output, bands=declared, nodata=nodata, batch_size=batch_size, overwrite=overwrite,
                allow_no_crs=allow_no_crs,
            ),
            exported.engine,
        )  # fmt: skip
    if (model / TASK).exists():
        loaded, card = load_task_model(model, zoo)
        ensemble, side = loaded.encoder, card.task.chip_size
    else:
        # An ensemble that is not tied to an input reads what the scene says it holds.
        tied = (model / MANIFEST).exists() and read_manifest(model / MANIFEST).bands is not None
        ensemble = load(model, declared or (None if tied else bands_of(image)), zoo=zoo)
        side = max(c.chip_size for c in ensemble.cards)
        if not ensemble.fusion_trained and any(True for _ in ensemble.fusion.parameters()):
            raise ConfigError(
                f"{model}: its {ensemble.fusion.name} fusion is untrained, so its features would be random mixtures. "
                "Adapt it to a task first, or compose with --fusion concat (or sum), which has nothing to train."
            )
    features = SceneFeatures(
        ensemble, level, chip_size or side, fingerprint(ensemble), _precision(precision), release=True
    )
    report = predict_scene(
        features, image, output, bands=declared, nodata=nodata, batch_size=batch_size, overwrite=overwrite,
        allow_no_crs=allow_no_crs,
    )  # fmt: skip
    outcome = scene_outcome(report, features.engine)
    left = tuple(f"left out {s.specialist}: {s.reason}" for s in ensemble.skipped)
    return replace(outcome, lines=(*outcome.lines, *left))
