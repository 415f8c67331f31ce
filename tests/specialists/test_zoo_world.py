"""The zoo's outside world: several zoos, filters, the Hub (a folder stands in for it), and STAC items."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from eosfm.bands import BandSet
from eosfm.contracts import CardError, ConfigError, CorruptArtifact, ZooError
from eosfm.files import OutputError
from eosfm.specialists import hub as hub_module
from eosfm.specialists.card import TaskInfo
from eosfm.specialists.choose import choose, list_zoos
from eosfm.specialists.hub import HuggingFace, pull, push
from eosfm.specialists.stac import export_stac, problems, stac_item
from eosfm.specialists.store import load_specialist, save_specialist, verify_specialist
from eosfm.specialists.zoo import find, list_zoo, verify_zoo
from helpers import TINY, edit_json, forge_weights, make_card, make_encoder, make_specialist, tree

# ---- several zoos ----


def test_several_zoos_are_one_list(tiny_zoo: Path, tmp_path: Path):
    save_specialist(*make_specialist("other", TINY["s2-rgb"], 7), tmp_path / "b")
    assert [e.card.name for e in list_zoos([tmp_path / "b", tiny_zoo])] == sorted([*TINY, "other"])


def test_a_name_in_two_zoos_is_an_error_that_names_both(tiny_zoo: Path, own_zoo: Path):
    with pytest.raises(ZooError, match="'s2-rgb' is in two zoos") as e:
        list_zoos([tiny_zoo, own_zoo])
    assert str(tiny_zoo / "s2-rgb") in str(e.value) and str(own_zoo / "s2-rgb") in str(e.value)


def test_one_zoo_twice_is_an_error(own_zoo: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(own_zoo)
    for again in (own_zoo, tmp_path / "link"):
        with pytest.raises(ZooError, match="is named twice"):
            list_zoos([own_zoo, again])


# ---- filters ----


def names(kept: Sequence[Any]) -> list[str]:
    return [e.card.name for e in kept]


def test_the_filter_by_bands_asks_the_rules(tiny_zoo: Path):
    """What is kept is what an ensemble would read, and the reason of each other one is the rule's."""
    entries = list_zoo(tiny_zoo)
    kept, left = choose(entries, bands=BandSet.parse("sentinel-2-l2a:B04,B03,B02@reflectance"))
    assert names(kept) == ["aerial-rgb", "s1-sar", "s2-rgb"]
    assert [n for n, _ in left] == ["s2-six"] and "B8A" in left[0][1]
    kept, left = choose(entries, bands=BandSet.parse("elevation:elevation@metre"))
    assert not kept and len(left) == 4 and all(r.startswith("cannot read them: ") for _, r in left)


def test_the_filters_by_modality_and_task(tiny_zoo: Path, tmp_path: Path):
    entries = list_zoo(tiny_zoo)
    assert names(choose(entries, modality="sar")[0]) == ["s1-sar"]
    assert names(choose(entries, modality="optical")[0]) == ["aerial-rgb", "s2-rgb", "s2-six"]
    assert names(choose(entries, task="segmentation")[0]) == sorted(TINY)
    assert choose(entries, task="regression")[1][0] == ("aerial-rgb", "trained for segmentation")
    both = make_specialist("both", "sentinel-1:VV@db + sentinel-2-l2a:B04@dn-1e4")
    save_specialist(*both, tmp_path)
    mixed = list_zoo(tmp_path)
    assert choose(mixed, modality="sar")[0] == choose(mixed, modality="optical")[0] == mixed
    for bad in ({"task": "magic"}, {"modality": "radio"}):
        with pytest.raises(ConfigError, match="known: "):
            choose(entries, **bad)


def test_an_unknown_licence_is_not_commercial_and_is_said(tmp_path: Path):
    for name, licence in {"free": "CC-BY-4.0", "closed": "CC-BY-NC-4.0 AND MIT", "odd": "MIT AND Foo-2"}.items():
        save_specialist(make_encoder(3), make_card(name, TINY["s2-rgb"], licence=licence), tmp_path)
    kept, left = choose(list_zoo(tmp_path), commercial=True)
    assert names(kept) == ["free"]
    assert dict(left) == {
        "closed": "licence CC-BY-NC-4.0 AND MIT: does not allow commercial use",
        "odd": "licence Foo-2: not known to allow commercial use",
    }


# ---- the Hub ----


class FolderHub:
    """A hub in a folder: one subfolder per commit of one repository. Records what was asked of it."""

    def __init__(self, root: Path) -> None:
        self.root, self.log, self.online = root, [], True
        self.now = ""

    def head(self, repo: str, revision: str) -> str:
        if not self.online or revision != "main":
            raise ZooError("no network")
        return self.now

    def create(self, repo: str, public: bool) -> None:
        self.log.append(("create", repo, public))
        if not self.now:
            self.now = "0" * 40
            (self.root / self.now).mkdir(parents=True)

    def fetch(self, repo: str, commit: str, files: Sequence[str]) -> Path:
        if not (self.root / commit).is_dir():
            raise ZooError(f"{repo} at {commit} is not in the cache")
        self.log.append(("fetch", commit, tuple(files)))
        return self.root / commit

    def upload(self, repo: str, folder: Path, message: str, parent: str) -> str:
        assert parent == self.now, "somebody else committed"
        commit = hashlib.sha1(json.dumps([parent, tree(folder)]).encode()).hexdigest()
        shutil.copytree(self.root / parent, self.root / commit)
        shutil.copytree(folder, self.root / commit, dirs_exist_ok=True)
        self.now = commit
        self.log.append(("upload", sorted(tree(folder)), message))
        return commit


@pytest.fixture
def hub(tmp_path: Path) -> FolderHub:
    return FolderHub(tmp_path / "hub")


REPO = "someone/zoo"


def test_push_then_pull_gives_the_same_bytes(tiny_zoo: Path, tmp_path: Path, hub: FolderHub):
    done = push(tiny_zoo, ["s2-rgb", "s1-sar"], REPO, hub=hub)
    assert done.pushed == ("s2-rgb", "s1-sar") and done.commit == hub.now
    assert hub.log[0] == ("create", REPO, False), "private unless asked otherwise"
    cards = pull(REPO, done.commit, tmp_path / "zoo", hub=hub)
    assert [c.name for c in cards] == ["s1-sar", "s2-rgb"]
    for name in ("s1-sar", "s2-rgb"):
        assert tree(tmp_path / "zoo" / name) == tree(tiny_zoo / name)
    readme = (hub.root / hub.now / "README.md").read_text()
    assert "| s2-rgb | sentinel-2-l2a:B04,B03,B02@reflectance | segmentation | CC0-1.0 |" in readme


def test_a_second_push_adds_and_leaves_equal_ones_alone(tiny_zoo: Path, tmp_path: Path, hub: FolderHub):
    first = push(tiny_zoo, ["s2-rgb"], REPO, hub=hub)
    again = push(tiny_zoo, ["s2-rgb"], REPO, hub=hub)
    assert again.commit == first.commit and again.unchanged == ("s2-rgb",) and not again.pushed
    more = push(tiny_zoo, ["s2-rgb", "s2-six"], REPO, public=True, hub=hub)
    assert more.pushed == ("s2-six",) and more.unchanged == ("s2-rgb",)
    assert [c.name for c in pull(REPO, more.commit, tmp_path / "zoo", hub=hub)] == ["s2-rgb", "s2-six"]
    assert [c.name for c in pull(REPO, first.commit, tmp_path / "old", hub=hub)] == ["s2-rgb"], "a pin stays a pin"
    assert "s2-six" in (hub.root / hub.now / "README.md").read_text()


def test_a_readme_that_people_wrote_is_left_alone(tiny_zoo: Path, hub: FolderHub):
    push(tiny_zoo, ["s2-rgb"], REPO, hub=hub)
    (hub.root / hub.now / "README.md").write_text("our own words")
    push(tiny_zoo, ["s2-six"], REPO, hub=hub)
    assert (hub.root / hub.now / "README.md").read_text() == "our own words"


def test_another_specialist_of_that_name_is_not_replaced_unasked(tiny_zoo: Path, tmp_path: Path, hub: FolderHub):
    push(tiny_zoo, ["s2-rgb"], REPO, hub=hub)
    mine = save_specialist(*make_specialist("s2-rgb", TINY["s2-rgb"], 99), tmp_path / "mine")
    before = hub.now
    with pytest.raises(ZooError, match="holds another specialist called s2-rgb"):
        push(tmp_path / "mine", None, REPO, hub=hub)
    assert hub.now == before
    done = push(tmp_path / "mine", None, REPO, overwrite=True, hub=hub)
    assert pull(REPO, done.commit, tmp_path / "zoo", hub=hub)[0].weights == mine.weights


def test_a_card_with_other_statistics_is_another_specialist(tiny_zoo: Path, tmp_path: Path, hub: FolderHub):
    """Equal weights under other statistics give other features; the push must not call that unchanged."""
    push(tiny_zoo, ["s2-rgb"], REPO, hub=hub)
    encoder, card = load_specialist(tiny_zoo / "s2-rgb")
    other = dataclasses.replace(card.statistics, mean=tuple(m + 1 for m in card.statistics.mean))
    save_specialist(encoder, dataclasses.replace(card, statistics=other), tmp_path / "mine")
    with pytest.raises(ZooError, match="holds another specialist"):
        push(tmp_path / "mine", None, REPO, hub=hub)


def test_an_unsound_specialist_is_not_pushed(own_zoo: Path, hub: FolderHub):
    (own_zoo / "s2-rgb" / "secrets.txt").write_text("x")
    with pytest.raises(CorruptArtifact, match=r"extra files secrets\.txt"):
        push(own_zoo, None, REPO, hub=hub)
    (own_zoo / "s2-rgb" / "secrets.txt").unlink()
    forge_weights(own_zoo / "s2-rgb", b"not safetensors")
    with pytest.raises(CorruptArtifact, match="not a valid safetensors file"):
        push(own_zoo, None, REPO, hub=hub)
    assert not hub.log


@pytest.mark.parametrize("revision", ["main", "", "v1", "0" * 39, "0" * 41, "HEAD", "../x"])
def test_a_pull_must_be_pinned(tiny_zoo: Path, tmp_path: Path, hub: FolderHub, revision: str):
    push(tiny_zoo, ["s2-rgb"], REPO, hub=hub)
    with pytest.raises(ConfigError, match="pin the full commit") as e:
        pull(REPO, revision, tmp_path / "zoo", hub=hub)
    assert (hub.now in str(e.value)) is (revision in ("main", "")), "it says what to pin where it can"
    hub.online = False
    with pytest.raises(ConfigError, match="pin the full commit"):
        pull(REPO, "main", tmp_path / "zoo", hub=hub)
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("repo", ["zoo", "../zoo", "a/b/c", "https://huggingface.co/a/b", "a/..", "", "a /b", "/etc"])
def test_a_repository_is_owner_and_name(tiny_zoo: Path, tmp_path: Path, hub: FolderHub, repo: str):
    for call in (lambda: push(tiny_zoo, None, repo, hub=hub), lambda: pull(repo, "0" * 40, tmp_path / "z", hub=hub)):
        with pytest.raises(ConfigError, match="expected OWNER/NAME"):
            call()


def remote(hub: FolderHub, name: str = "s2-rgb") -> Path:
    return hub.root / hub.now / name


def bad_name(hub: FolderHub) -> None:
    index = hub.root / hub.now / "zoo.json"
    data = json.loads(index.read_text())
    data["specialists"]["../../evil"] = data["specialists"]["s2-rgb"]
    index.write_text(json.dumps(data))


def other_weights(hub: FolderHub) -> None:
    """A hostile author replaces weights and card together, so that they agree with each other."""
    save_specialist(*make_specialist("s2-rgb", TINY["s2-rgb"], 99), remote(hub).parent, overwrite=True)


def flip(hub: FolderHub) -> None:
    data = bytearray((remote(hub) / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (remote(hub) / "model.safetensors").write_bytes(data)


def huge(hub: FolderHub) -> None:
    with (remote(hub) / "model.safetensors").open("r+b") as f:
        f.truncate(hub_module.MAX_FILE + 1)


def renamed(hub: FolderHub) -> None:
    edit_json(remote(hub) / "card.json", name="other")


DAMAGE: dict[str, tuple[Callable[[FolderHub], None], str]] = {
    "flipped bit": (flip, "sha256"),
    "weights and card replaced": (other_weights, r"not those of the repository's zoo\.json"),
    "huge file": (huge, "a specialist's files have fewer"),
    "card of another name": (renamed, "its card says it is 'other'"),
    "card missing": (lambda h: (remote(h) / "card.json").unlink(), "did not come: the cache is incomplete"),
    "weights missing": (lambda h: (remote(h) / "model.safetensors").unlink(), "did not come: the cache is incomplete"),
    "index missing": (lambda h: (h.root / h.now / "zoo.json").unlink(), r"no zoo\.json"),
    "index is no index": (lambda h: (h.root / h.now / "zoo.json").write_text("{}"), "specialists: "),
    "a name that leads out": (bad_name, "expected 1-80"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_or_hostile_repository_leaves_the_zoo_as_it_was(
    tiny_zoo: Path, own_zoo: Path, hub: FolderHub, case: str
):
    push(tiny_zoo, ["s2-rgb"], REPO, hub=hub)
    damage, message = DAMAGE[case]
    damage(hub)
    before = tree(own_zoo)
    with pytest.raises((CorruptArtifact, CardError, ZooError), match=message):
        pull(REPO, hub.now, own_zoo, overwrite=True, hub=hub)
    assert tree(own_zoo) == before
    assert not list(own_zoo.rglob(".*")), "leftovers"


def test_pull_asks_only_for_the_names_wanted(tiny_zoo: Path, tmp_path: Path, hub: FolderHub):
    done = push(tiny_zoo, None, REPO, hub=hub)
    pull(REPO, done.commit, tmp_path / "zoo", ["s2-six"], hub=hub)
    assert hub.log[-1] == ("fetch", done.commit, ("s2-six/card.json", "s2-six/model.safetensors"))
    with pytest.raises(ZooError, match="no specialist 'wolf'; known: aerial-rgb"):
        pull(REPO, done.commit, tmp_path / "zoo", ["wolf"], hub=hub)
    with pytest.raises(OutputError, match="exists already"):
        pull(REPO, done.commit, tmp_path / "zoo", hub=hub)
    assert names(list_zoo(tmp_path / "zoo")) == ["s2-six"], "nothing else was written"


# ---- the Hub's own library, without network ----


def cached(home: Path, zoo: Path, commit: str) -> None:
    """What the library leaves in its cache after a download of the whole repository."""
    snapshot = home / "models--someone--zoo" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    index = {}
    for e in list_zoo(zoo):
        shutil.copytree(e.folder, snapshot / e.card.name)
        index[e.card.name] = hub_module._entry(e.card)
    (snapshot / "zoo.json").write_text(
        json.dumps({"schema_version": 1, "specialists": {n: dataclasses.asdict(i) for n, i in index.items()}})
    )


def test_a_pull_works_offline_from_the_cache(own_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The real library, HF_HUB_OFFLINE, a cache on disk."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    cached(tmp_path / "cache", own_zoo, "a" * 40)
    cards = pull("someone/zoo", "a" * 40, tmp_path / "pulled")
    assert [c.name for c in cards] == ["s2-rgb"]
    assert tree(tmp_path / "pulled") == tree(own_zoo)
    with pytest.raises(ZooError, match=r"not in the cache.*\n.*HF_HUB_OFFLINE=1"):
        pull("someone/zoo", "b" * 40, tmp_path / "other")
    with pytest.raises(ConfigError, match="pin the full commit"):
        pull("someone/zoo", "main", tmp_path / "other")
    (tmp_path / "cache" / "models--someone--zoo" / "snapshots" / ("a" * 40) / "s2-rgb" / "model.safetensors").unlink()
    with pytest.raises(ZooError, match="cache"):
        pull("someone/zoo", "a" * 40, tmp_path / "other")
    assert not (tmp_path / "other").exists() or not list((tmp_path / "other").iterdir())


class FakeApi:
    """huggingface_hub.HfApi, as far as we use it."""

    calls: list[tuple[Any, ...]] = []  # noqa: RUF012
    sizes: dict[str, int] = {}  # noqa: RUF012

    def model_info(self, repo: str, *, revision: str, files_metadata: bool = False) -> SimpleNamespace:
        self.calls.append(("model_info", repo, revision, files_metadata))
        files = [SimpleNamespace(rfilename=n, size=s) for n, s in self.sizes.items()]
        return SimpleNamespace(sha="c" * 40, siblings=files)

    def create_repo(self, repo: str, *, private: bool, exist_ok: bool) -> None:
        self.calls.append(("create_repo", repo, private, exist_ok))

    def upload_folder(
        self,
        *,
        repo_id: str,
        folder_path: Path,
        commit_message: str,
        parent_commit: str,
        delete_patterns: list[str] | None,
    ) -> SimpleNamespace:
        self.calls.append(("upload_folder", repo_id, sorted(tree(Path(folder_path))), parent_commit, delete_patterns))
        return SimpleNamespace(oid="d" * 40)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[FakeApi]:
    FakeApi.calls, FakeApi.sizes = [], {}
    monkeypatch.setattr("huggingface_hub.HfApi", FakeApi)
    (tmp_path / "snap").mkdir()

    def snapshot(repo: str, *, revision: str, allow_patterns: list[str], local_files_only: bool) -> str:
        FakeApi.calls.append(("snapshot", repo, revision, tuple(allow_patterns), local_files_only))
        return str(tmp_path / "snap")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return FakeApi


def test_a_push_is_one_commit_on_top_of_the_one_that_was_read(own_zoo: Path, api: type[FakeApi]):
    done = push(own_zoo, None, REPO)
    assert done.commit == "d" * 40
    kinds = [c[0] for c in api.calls]
    assert kinds == ["create_repo", "model_info", "model_info", "snapshot", "upload_folder"]
    assert api.calls[0] == ("create_repo", REPO, True, True)
    assert api.calls[3][2] == "c" * 40, "the index is read at the very commit"
    files = ["README.md", "s2-rgb/card.json", "s2-rgb/model.safetensors", "zoo.json"]
    assert api.calls[-1] == ("upload_folder", REPO, files, "c" * 40, ["s2-rgb/model.sig"]), "no old signature stays"
    (own_zoo / "s2-rgb" / "model.sig").write_text("{}")
    push(own_zoo, None, REPO)
    assert "s2-rgb/model.sig" in api.calls[-1][2] and api.calls[-1][4] is None


def test_a_file_of_absurd_size_is_not_even_fetched(api: type[FakeApi]):
    api.sizes = {"a/model.safetensors": hub_module.MAX_FILE + 1, "movie.mp4": 1 << 40}
    HuggingFace().fetch(REPO, "c" * 40, ["b/model.safetensors"])
    with pytest.raises(CorruptArtifact, match=r"a/model\.safetensors has"):
        HuggingFace().fetch(REPO, "c" * 40, ["a/model.safetensors"])
    assert [c[0] for c in api.calls].count("snapshot") == 1


def test_the_calls_fit_the_installed_library():
    """The fakes above would hide an argument that the library does not have."""
    import inspect

    import huggingface_hub as library

    wanted = {
        library.HfApi.model_info: {"revision", "files_metadata"},
        library.HfApi.create_repo: {"private", "exist_ok"},
        library.HfApi.upload_folder: {"repo_id", "folder_path", "commit_message", "parent_commit", "delete_patterns"},
        library.snapshot_download: {"revision", "allow_patterns", "local_files_only"},
    }
    for function, arguments in wanted.items():
        assert arguments <= inspect.signature(function).parameters.keys(), function


@pytest.mark.parametrize("what", ["OfflineModeIsEnabled", "LocalEntryNotFoundError", "EntryNotFoundError"])
def test_whatever_the_library_raises_is_our_error(monkeypatch: pytest.MonkeyPatch, what: str):
    from huggingface_hub import errors

    def fail(*_: Any, **__: Any) -> None:
        raise getattr(errors, what)("the library's words")

    monkeypatch.setattr(FakeApi, "model_info", fail)
    monkeypatch.setattr("huggingface_hub.HfApi", FakeApi)
    with pytest.raises(ZooError, match=rf"cannot ask for main of {REPO}: {what}: the library's words\n.*network"):
        HuggingFace().head(REPO, "main")


def test_a_connection_that_fails_is_our_error(monkeypatch: pytest.MonkeyPatch):
    """The real client against a port where nobody listens."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    from huggingface_hub import HfApi

    monkeypatch.setattr("huggingface_hub.HfApi", lambda: HfApi(endpoint="http://127.0.0.1:9"))
    with pytest.raises(ZooError, match="cannot ask for main"):
        HuggingFace().head(REPO, "main")


# ---- STAC ----


def test_every_card_becomes_a_valid_item(tiny_zoo: Path, tmp_path: Path):
    for e in list_zoo(tiny_zoo):
        path = export_stac(e, tmp_path / "stac")
        item = json.loads(path.read_text())
        assert path == tmp_path / "stac" / e.card.name / "stac-item.json"
        assert problems(item) == []
        weights = item["assets"]["weights"]
        assert (path.parent / weights["href"]).resolve() == (e.folder / "model.safetensors").resolve()
        digest = hashlib.sha256((e.folder / "model.safetensors").read_bytes()).hexdigest()
        assert weights["file:checksum"] == "1220" + digest
        model_input = item["properties"]["mlm:input"][0]
        assert model_input["bands"] == [f"{b.sensor}:{b.name}" for b in e.card.bandset()]
        assert [s["mean"] for s in model_input["value_scaling"]] == list(e.card.statistics.mean)
        assert item["properties"]["eosfm:licence"] == e.card.licence
        verify_specialist(e.folder, exact_files=True)


def test_an_item_describes_bands_by_wavelength_and_a_repeated_one_once(tiny_zoo: Path):
    sar, rgb = (stac_item(find(tiny_zoo, [n])[0].card, ".")["properties"] for n in ("s1-sar", "s2-rgb"))
    assert [b["name"] for b in sar["bands"]] == ["sentinel-1:VV", "sentinel-1:VH"]
    assert sar["mlm:input"][0]["bands"] == ["sentinel-1:VV", "sentinel-1:VH", "sentinel-1:VH"]
    assert rgb["bands"][0]["eo:common_name"] == "red" and rgb["bands"][0]["eo:center_wavelength"] == 0.665
    assert "eo:common_name" not in sar["bands"][0]


def test_a_url_can_stand_for_the_folder(tiny_zoo: Path, tmp_path: Path):
    path = export_stac(find(tiny_zoo, ["s2-rgb"])[0], tmp_path, "https://example.org/zoo/s2-rgb/")
    href = json.loads(path.read_text())["assets"]["weights"]["href"]
    assert href == "https://example.org/zoo/s2-rgb/model.safetensors"


def test_an_item_never_lies_inside_a_specialist(own_zoo: Path):
    (entry,) = list_zoo(own_zoo)
    for folder in (own_zoo, own_zoo / "s2-rgb"):
        with pytest.raises(CardError, match="name another folder"):
            export_stac(entry, folder)
    assert verify_zoo(own_zoo) == [("s2-rgb", "")]


@pytest.mark.parametrize("name", ["3bands", "a", "x+y", "plus+", "end-", "a.b"])
@pytest.mark.parametrize("kind", ["segmentation", "none", "masked-autoencoder", "something"])
def test_odd_names_and_kinds_still_make_valid_items(name: str, kind: str):
    card = make_card(name, TINY["s2-rgb"], task=TaskInfo(kind=kind))
    item = stac_item(card, ".")
    assert problems(item) == []
    assert item["id"] == name
    assert item["properties"]["mlm:pretrained"] is (kind != "none")


def put(item: dict[str, Any], path: str, value: Any) -> None:
    node: Any = item
    *parents, leaf = path.split("/")
    for p in parents:
        node = node[int(p)] if isinstance(node, list) else node[p]
    if value is None:
        del node[leaf]
    else:
        node[leaf] = value


BROKEN = {
    "type": ("type", "Collection", "type is 'Collection'"),
    "version": ("stac_version", "1.0.0", "stac_version is '1.0.0'"),
    "extension": ("stac_extensions", [], "stac_extensions lacks"),
    "bbox": ("bbox", [0, 0, 1, 1], "a bbox without a geometry"),
    "required": ("properties/mlm:architecture", None, "properties lack mlm:architecture"),
    "unknown field": ("properties/mlm:colour", 1, "unknown field mlm:colour"),
    "misplaced": ("properties/mlm:artifact_type", "x", "mlm:artifact_type belongs to an asset"),
    "date": ("properties/datetime", "yesterday", "datetime is 'yesterday'"),
    "date without zone": ("properties/datetime", "2026-01-01T00:00:00", "with its zone"),
    "name": ("properties/mlm:name", "-x-", "mlm:name is"),
    "task": ("properties/mlm:tasks", ["magic"], "mlm:tasks has magic"),
    "source": ("properties/mlm:pretrained", False, "must be null"),
    "shape": ("properties/mlm:input/0/input/shape", [-1, 3], "do not agree"),
    "bands of another number": ("properties/mlm:input/0/bands", ["sentinel-2-l2a:B04"], "1 bands, shape"),
    "undescribed band": ("properties/bands", [], "is not described"),
    "no bands dimension": ("properties/mlm:input/0/input/dim_order", ["batch", "c", "height", "width"], "dimension 'bands'"),
    "scaling": ("properties/mlm:input/0/value_scaling", [{"type": "z-score", "mean": 1}] * 3, "finite mean and stddev"),
    "scalings": ("properties/mlm:input/0/value_scaling", [{"type": "z-score", "mean": 1, "stddev": 1}] * 2, "2 scalings"),
    "output": ("properties/mlm:output/0/result", None, "an output lacks result"),
    "no model": ("assets/weights/roles", ["data"], "no asset with role mlm:model"),
    "artifact": ("assets/weights/mlm:artifact_type", None, "go together"),
    "checksum": ("assets/weights/file:checksum", "abc", "no SHA-256 multihash"),
    "href": ("assets/card/href", "", "no href"),
    "assets": ("assets", {}, "no assets"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_the_check_of_items_can_fail(case: str):
    path, value, message = BROKEN[case]
    item = copy.deepcopy(stac_item(make_card("fine", TINY["s2-rgb"]), "."))
    assert problems(item) == []
    put(item, path, value)
    assert any(message in p for p in problems(item)), problems(item)
