"""The house's rules that can be read from the source: who imports whom, one door per heavy library, README's tree."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "eosfm"

# The order of docs/architecture.md: a module may import from its own layer and from lower ones.
LAYERS = [
    ["contracts", "_version"],
    ["units", "sensors", "config", "files", "seeding", "cluster", "progress", "tasks.kinds", "tasks.boxes"],
    ["bands", "statistics"],
    ["rules", "adaptation"],
    ["specialists", "fusion"],
    ["ensemble", "composition", "engine", "dates"],
    ["tasks", "engine.export"],
    ["inference"],
    ["data", "outward"],
    ["training"],
    ["benchmark", "report"],
    ["explain"],
    ["demo", "runs", "queue"],
    [
        "outcomes",
        "commands",
        "commands_bench",
        "commands_data",
        "commands_explain",
        "commands_export",
        "commands_scene",
        "commands_zoo",
        "cli",
        "__main__",
    ],
]
FORBIDDEN_WITHIN_LAYER = [
    ("specialists", "fusion"),
    ("fusion", "specialists"),
    ("report", "benchmark"),
    ("report", "training"),
    ("data", "outward"),
    ("outward", "data"),
]
DOORS = {
    "timm": {"specialists/encoder.py"},
    "lightning": {"training/module.py", "training/checkpoints.py"},
    "rasterio": {"inference/raster.py"},
    "torchmetrics": {"tasks/objectives.py"},
    "torchvision": {"tasks/detection.py"},
    "segmentation_models_pytorch": {"tasks/objectives.py", "benchmark/baselines.py"},
    "huggingface_hub": {"specialists/encoder.py", "specialists/hub.py"},
    "model_signing": {"specialists/signing.py"},
    "cryptography": {"specialists/signing.py"},
    "openvino": {"engine/convert.py", "engine/runtime.py"},
    "onnx": {"engine/convert.py"},
    "onnxruntime": {"engine/runtime.py"},
    "nncf": {"engine/convert.py"},
    "pandas": {"data/published/*"},
    "pyarrow": {"data/published/*"},
    "h5py": {"data/published/*"},
    "codecarbon": {"training/energy.py"},
    "torchgeo": {"benchmark/named/torchgeo_models.py"},
    "terratorch": {"benchmark/named/terratorch_models.py", "outward/terratorch.py"},
    "ray": {"cluster.py"},
    "matplotlib": {"report/*"},
    "jinja2": {"report/*"},
    "typer": {
        "commands.py",
        "commands_bench.py",
        "commands_data.py",
        "commands_explain.py",
        "commands_export.py",
        "commands_scene.py",
        "commands_zoo.py",
        "cli.py",
    },
    "rich": {"progress.py", "cli.py"},
}


def modules():
    for path in sorted(SRC.rglob("*.py")):
        yield path, path.relative_to(SRC).with_suffix("").as_posix().replace("/", ".")


def imports(path, *, with_type_checking=True):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{a.name}" for a in node.names)


def layer_of(module):
    best = None
    for i, names in enumerate(LAYERS):
        for n in names:
            if (module == n or module.startswith(n + ".")) and (best is None or len(n) > best[1]):
                best = (i, len(n))
    return None if best is None else best[0]


def test_every_module_has_a_layer():
    lost = [m for _, m in modules() if layer_of(m) is None and not m.endswith("__init__")]
    assert not lost


def test_imports_point_one_way():
    wrong = []
    for path, module in modules():
        mine = layer_of(module)
        if mine is None:
            continue
        for name in imports(path):
            if not name.startswith("eosfm."):
                continue
            other = name.removeprefix("eosfm.")
            theirs = layer_of(other)
            if theirs is None:
                continue
            head, other_head = module.split(".")[0], other.split(".")[0]
            if theirs > mine or (head, other_head) in FORBIDDEN_WITHIN_LAYER:
                wrong.append(f"{module} imports {name}")
    assert not wrong, wrong


@pytest.mark.parametrize("library", sorted(DOORS))
def test_heavy_libraries_have_one_door(library):
    users = set()
    for path, _ in modules():
        if any(n == library or n.startswith(library + ".") for n in imports(path)):
            users.add(path.relative_to(SRC).as_posix())
    allowed = DOORS[library]
    outside = {u for u in users if u not in allowed and f"{u.rsplit('/', 1)[0]}/*" not in allowed}
    assert users, f"nobody imports {library}: drop it from pyproject.toml"
    assert not outside, outside


def test_no_pickle_and_no_unsafe_load():
    for path, _ in modules():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*import pickle|pickle\.loads?\(", text, re.M), path
        for call in re.findall(r"torch\.load\([^\n]*", text):
            assert "weights_only=True" in call, (path, call)
        for call in re.findall(r"np\.load\([^\n]*", text):
            assert "allow_pickle=False" in call, (path, call)


def test_no_stub_is_left():
    for path, module in modules():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\b(TODO|FIXME|XXX)\b", text), path
        if "raise NotImplementedError" in text:
            assert module == "fusion.fuse", path  # the abstract method of the fusions


def test_readme_tree_is_the_disk():
    """Every file the README's tree names exists, and every module is named there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"```\nsrc/eosfm/\n(.*?)```", readme, re.S)
    assert tree, "README.md has no tree that begins with src/eosfm/"
    named, stack = set(), []
    for line in tree[1].splitlines():
        m = re.match(r"( *)(\S+)", line)
        if not m:
            continue
        depth = len(m[1]) // 2 - 1
        stack = [*stack[:depth], m[2].rstrip("/")]
        if not m[2].endswith("/"):
            named.add("/".join(stack))
    on_disk = {p.relative_to(SRC).as_posix() for p in SRC.rglob("*.py") if p.name != "__init__.py" or p.parent == SRC}
    on_disk -= {"_version.py"}
    assert named - {p.relative_to(SRC).as_posix() for p in SRC.rglob("*")} == set(), "in the README but not on disk"
    assert on_disk - named == set(), "on disk but not in the README"


def test_modules_are_small():
    long = {m: n for p, m in modules() if (n := len(p.read_text(encoding="utf-8").splitlines())) > 350}
    assert not long, long


def test_requirements_name_no_host():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert "://" not in text and "--index" not in text and "file:" not in text
