"""The ``eosfm zoo`` commands: list, show, verify, sign, import, push, pull, export. Importing this imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eosfm.contracts import ConfigError, EosfmError
from eosfm.outcomes import Outcome

if TYPE_CHECKING:
    from eosfm.specialists.card import SpecialistCard
    from eosfm.specialists.upstream import Description, Imported

ZooDir = Annotated[Path, typer.Argument(metavar="ZOO", help="Folder of specialists.")]
To = Annotated[Path, typer.Option("--to", help="The zoo to store them in.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these; default all.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


def zoo_list(
    zoos: Annotated[
        list[Path] | None, typer.Argument(metavar="[ZOO]...", help="Folders of specialists; default zoo.")
    ] = None,
    bands: Annotated[
        str | None, typer.Option(help="Only those that can read these: SENSOR:BAND,BAND@UNIT, joined by '+'.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Only this kind of task, e.g. segmentation.")] = None,
    modality: Annotated[str | None, typer.Option(help="Only those that read optical or sar bands.")] = None,
    licence: Annotated[str | None, typer.Option(help="commercial: only those known to allow commercial use.")] = None,
) -> Outcome:
    """List the specialists of one or more zoos: bands, task, score, licence."""
    from eosfm.bands import BandSet
    from eosfm.specialists.choose import choose, list_zoos

    if licence not in (None, "commercial"):
        raise ConfigError(f"--licence {licence!r}; known: commercial")
    folders = [Path(z) for z in zoos or [Path("zoo")]]
    broken: dict[str, EosfmError] = {}
    entries = list_zoos(folders, broken)
    kept, left = choose(
        entries,
        bands=BandSet.parse(bands) if bands else None,
        task=task or "",
        modality=modality or "",
        commercial=licence == "commercial",
    )
    rows = [("name", "bands", "task", "score", "images", "licence")]
    for e in kept:
        c = e.card
        score = f"{c.metrics[0].name} {c.metrics[0].value:.3f}" if c.metrics else "-"
        rows.append((c.name, str(c.bandset()), c.task.kind, score, str(c.data.images), c.licence))
    of = f" of {len(entries)}" if left else ""
    lines = [f"left out {name}: {reason}" for name, reason in left]
    lines += [f"broken {name}: {error}" for name, error in broken.items()]
    lines.append(f"{len(kept)}{of} specialists in {', '.join(map(str, folders))}")
    return Outcome([e.card for e in kept], table=tuple(rows), lines=tuple(lines), failed=bool(broken))


def zoo_show(zoo: ZooDir, name: Annotated[str, typer.Argument(help="Name of the specialist.")]) -> Outcome:
    """Print a specialist's card."""
    import yaml

    from eosfm.config import to_plain
    from eosfm.specialists.zoo import find

    card: SpecialistCard = find(Path(zoo), [name])[0].card
    return Outcome(card, lines=(yaml.safe_dump(to_plain(card), sort_keys=False, allow_unicode=True).rstrip(),))


def zoo_verify(
    zoo: ZooDir = Path("zoo"),
    names: Names = None,
    key: Annotated[
        Path | None, typer.Option(help="Public key (PEM): every specialist must be signed with its partner.")
    ] = None,
) -> Outcome:
    """Check every card, hash and tensor of a zoo; with a key, every signature too."""
    from eosfm.specialists.signing import is_signed
    from eosfm.specialists.zoo import verify_zoo

    results = verify_zoo(Path(zoo), names, key=Path(key) if key else None)
    bad = [r for r in results if r[1]]
    rows = [("specialist", "result", "signature")]
    for name, problem in results:
        there = is_signed(Path(zoo) / name)
        holds = "see the result" if problem else "good"
        rows.append((name, problem or "ok", "none" if not there else holds if key else "there, not checked (--key)"))
    of = f"{len(results) - len(bad)} of {len(results)} are sound" + (f" and signed with {key}" if key else "")
    return Outcome(results, table=tuple(rows), lines=(of,), failed=bool(bad))


def zoo_sign(
    zoo: ZooDir,
    key: Annotated[Path, typer.Option(help="Private key (PEM, elliptic curve, not encrypted). It stays where it is.")],
    names: Names = None,
    overwrite: Overwrite = False,
) -> Outcome:
    """Sign specialists with your private key, offline: model.sig vouches for card and weights."""
    from eosfm.specialists.signing import sign_zoo

    done = sign_zoo(Path(zoo), names, Path(key), overwrite=overwrite)
    return Outcome(done, lines=(*(f"signed {n}" for n in done), "check with: eosfm zoo verify --key PUBLIC.pem"))


def zoo_import(
    source: Annotated[
        str, typer.Argument(metavar="FILE|timm:NAME", help="Weights file, or e.g. timm:convnextv2_atto.fcmae.")
    ],
    zoo: To = Path("zoo"),
    as_: Annotated[
        list[str] | None,
        typer.Option("--as", metavar="ENTRY=NAME", help="Which published specialist an entry is (repeat)."),
    ] = None,
    entry: Annotated[list[int] | None, typer.Option(help="Only this entry of a list, from 0 (repeat).")] = None,
    prefix: Annotated[str | None, typer.Option(help="Where the encoder lies in a checkpoint of several.")] = None,
    name: Annotated[str | None, typer.Option(help="Describe it yourself: its name in the zoo.")] = None,
    bands: Annotated[
        str | None, typer.Option(help="... its bands in channel order: SENSOR:BAND,BAND@UNIT, joined by '+'.")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="... trained on (value - mean) / std: per band, or one.")] = None,
    std: Annotated[str | None, typer.Option(help="... likewise; may be negative.")] = None,
    task: Annotated[str | None, typer.Option(help="... kind of task it was trained for.")] = None,
    classes: Annotated[str | None, typer.Option(help="... classes, comma separated.")] = None,
    dataset: Annotated[str | None, typer.Option(help="... what it was trained on.")] = None,
    chip_size: Annotated[int | None, typer.Option(help="... side of its training images in pixels.")] = None,
    licence: Annotated[str, typer.Option(help="... SPDX licence of the weights.")] = "unknown",
    data_licence: Annotated[str, typer.Option(help="... SPDX licence of the data.")] = "unknown",
    architecture: Annotated[
        str | None, typer.Option(help="... timm's name for it, if it is not ConvNeXtV2-Atto: resnet18.")
    ] = None,
    pyramid: Annotated[
        str | None, typer.Option(help="resample: make four levels of a network with one stride (a plain ViT).")
    ] = None,
    overwrite: Overwrite = False,
) -> Outcome:
    """Import specialists that others trained: EoS-FM's file, a Lightning, TerraTorch or TorchGeo checkpoint, timm's weights."""
    from eosfm.specialists.upstream import import_file, import_timm

    own = _description(name, bands, mean, std, task, classes, dataset, chip_size, licence, data_licence)
    kind, colon, timm_name = source.partition(":")
    from_timm = kind == "timm" and bool(colon)
    if pyramid not in (None, "resample"):
        raise ConfigError(f"--pyramid {pyramid!r}; known: resample")
    if architecture or (from_timm and timm_name.partition(".")[0] != "convnextv2_atto"):
        if own is None or as_ or entry or (from_timm and (architecture or prefix)):
            raise ConfigError(
                f"{source}: a backbone of another architecture needs your description (--name, --bands, --mean, --std, --task, "
                "--dataset, --chip-size), and takes none of --as and --entry; timm:NAME none of --architecture and --prefix"
            )
        from eosfm.specialists.import_backbone import import_backbone

        place, resample = source if from_timm else Path(source), pyramid == "resample"
        one = import_backbone(
            place, architecture or "", own, Path(zoo), prefix=prefix, resample=resample, overwrite=overwrite
        )
        return _imported([one], zoo)
    if pyramid:
        raise ConfigError("--pyramid is for other architectures; ConvNeXtV2-Atto gives a pyramid itself")
    if from_timm:
        if own is not None or as_ or entry or prefix:
            raise ConfigError(f"{source}: timm's weights are described already; leave out all but --to and --overwrite")
        return _imported([import_timm(timm_name, Path(zoo), overwrite=overwrite)], zoo)
    pairs = [text.partition("=") for text in as_ or []]
    if bad := [f"{a}{b}{c}" for a, b, c in pairs if not (a and b and c)]:
        raise ConfigError(f"--as {bad[0]!r}: expected ENTRY=NAME, for example 7=bigearthnet-rgb")
    if own is not None and pairs:
        raise ConfigError("an entry is described either by --as or by --name, --bands, ...; not by both")
    done = import_file(
        Path(source), Path(zoo), own=own, names={a: c for a, _, c in pairs}, entries=entry or None, prefix=prefix,
        overwrite=overwrite,
    )  # fmt: skip
    return _imported(done, zoo)


def zoo_push(
    zoo: ZooDir,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hugging Face Hub.")],
    names: Names = None,
    public: Annotated[bool, typer.Option("--public", help="A new repository is public; default private.")] = False,
    overwrite: Overwrite = False,
) -> Outcome:
    """Put specialists on the Hugging Face Hub. Needs `hf auth login`; says the commit to pin."""
    from eosfm.specialists.hub import push

    done = push(Path(zoo), names, repo, public=public, overwrite=overwrite)
    lines = [f"pushed {n}" for n in done.pushed] + [f"unchanged {n}" for n in done.unchanged]
    return Outcome(done, lines=(*lines, f"{repo} is at {done.commit}"))


def zoo_pull(
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hugging Face Hub.")],
    revision: Annotated[str, typer.Option(help="Full commit hash: weights that never change under you.")],
    names: Names = None,
    zoo: To = Path("zoo"),
    overwrite: Overwrite = False,
) -> Outcome:
    """Fetch specialists from the Hugging Face Hub at a pinned commit, or from its cache (HF_HUB_OFFLINE=1)."""
    from eosfm.specialists.hub import pull

    cards = pull(repo, revision, Path(zoo), names, overwrite=overwrite)
    lines = (*_licences(cards), f"{len(cards)} specialists of {repo}@{revision[:12]} are in {zoo}")
    return Outcome(cards, lines=lines)


def zoo_export_stac(
    zoo: ZooDir,
    name: Annotated[str, typer.Argument(help="Name of the specialist.")],
    to: Annotated[Path, typer.Option("--to", help="Folder of STAC items; the item is NAME/stac-item.json in it.")],
    href: Annotated[str, typer.Option(help="URL of the folder that holds its files; default: a relative path.")] = "",
) -> Outcome:
    """Write a specialist's card as a STAC item (MLM extension), for catalogues."""
    from eosfm.specialists.stac import export_stac
    from eosfm.specialists.zoo import find

    path = export_stac(find(Path(zoo), [name])[0], Path(to), href)
    return Outcome(path, lines=(f"wrote {path}",))


def zoo_export_pangaea(
    zoo: ZooDir,
    inputs: Annotated[
        list[str], typer.Option("--input", help="What a modality is: optical=hls-s30@reflectance; once for each.")
    ],
    to: Annotated[Path, typer.Option("--to", help="The file to write: configs/encoder/eosfm.yaml of pangaea-bench.")],
    normalised: Annotated[str, typer.Option(help="mean-std (PANGAEA's default preprocessing) or none.")] = "mean-std",
    leave_out: Annotated[list[str] | None, typer.Option("--leave-out", help="A specialist that saw the data.")] = None,
) -> Outcome:
    """Write the YAML with which pangaea-bench takes a zoo as its encoder (docs/outward.md)."""
    from eosfm.outward.pangaea import encoder_config, write_encoder_config

    declared = dict(text.partition("=")[::2] for text in inputs)
    if len(declared) != len(inputs) or not all(k and v for k, v in declared.items()):
        raise ConfigError(f"--input {' --input '.join(inputs)}: expected MODALITY=SENSOR@UNIT, each modality once")
    text = encoder_config(Path(zoo), declared, normalised=normalised, leave_out=leave_out or ())
    return Outcome(path := write_encoder_config(text, Path(to)), lines=(f"wrote {path}",))


def _description(
    name: str | None, bands: str | None, mean: str | None, std: str | None, task: str | None, classes: str | None,
    dataset: str | None, chip_size: int | None, licence: str, data_licence: str,
) -> Description | None:  # fmt: skip
    """The user's own description of an encoder; None where nothing is described, an error where only a part is."""
    needed = {"name": name, "bands": bands, "mean": mean, "std": std, "task": task, "dataset": dataset,
              "chip-size": chip_size}  # fmt: skip
    if all(v is None for v in (*needed.values(), classes)) and licence == data_licence == "unknown":
        return None
    missing = [f"--{k}" for k, v in needed.items() if v is None]
    if missing or chip_size is None:
        raise ConfigError(f"an encoder described by you needs {', '.join(missing)} too; nothing of it is guessed")
    from eosfm.specialists.upstream import Description

    words = tuple(c.strip() for c in classes.split(",") if c.strip()) if classes else ()
    return Description(
        name=str(name), bands=str(bands), mean=_numbers("--mean", str(mean)), std=_numbers("--std", str(std)),
        chip_size=chip_size, task=str(task), classes=words, dataset=str(dataset), licence=licence,
        data_licence=data_licence,
    )  # fmt: skip


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(t) for t in text.split(","))
    except ValueError:
        raise ConfigError(f"{option} {text!r}: expected numbers, comma separated") from None


def _imported(done: Sequence[Imported], zoo: Path) -> Outcome:
    rows = [("specialist", "architecture", "bands", "task", "licence")]
    rows += [(i.card.name, i.card.architecture, str(i.card.bandset()), i.card.task.kind, i.card.licence) for i in done]
    lines = [f"{i.card.name}: {note}" for i in done for note in i.notes]
    lines += _licences([i.card for i in done])
    lines.append(f"{len(done)} specialists imported into {zoo}")
    return Outcome([i.card for i in done], table=tuple(rows), lines=tuple(lines))


def _licences(cards: Sequence[SpecialistCard]) -> list[str]:
    """What their licences mean for use, one line each licence."""
    from eosfm.specialists.licences import allows_commercial_use, unknown_words

    out = []
    for licence in sorted({c.licence for c in cards}):
        if unknown := unknown_words(licence):
            out.append(
                f"licence {licence}: not known to allow commercial use ({', '.join(unknown)} is not in our table)"
            )
        else:
            may = "allows" if allows_commercial_use(licence) else "does not allow"
            out.append(f"licence {licence}: {may} commercial use")
    return out


def zoo_add(
    model: Annotated[Path, typer.Argument(help="Folder of a task model.")],
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Specialists of its zoo to add.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the wider task model.")],
    zoo: Annotated[Path | None, typer.Option(help="Where the specialists lie, if not in the model's zoo.")] = None,
) -> Outcome:
    """Add specialists to a task model. It predicts what it did until it is adapted further (`start:` of an adapt file)."""
    from eosfm.tasks.stored import extend_task_model

    card = extend_task_model(model, names, output, zoo)
    return Outcome(card, lines=(f"stored {output}; its new fusion weights are 0 until it is adapted further",))
