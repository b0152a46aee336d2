"""The layers: who may import whom, read from the source. And what no file may use at all."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Imports go one way: each place may import from its own folder and from the places named here.
MACHINE = {"lm.errors", "lm.machine"}
MODEL = {*MACHINE, "lm.data", "lm.cells", "lm.model"}
MAY_IMPORT = {
    "lm.errors": set(),
    "lm.machine": MACHINE,
    "lm.data": MACHINE,
    "lm.cells": MACHINE,
    "lm.runs": {*MACHINE, "configs.base"},
    "lm.model": MODEL,
    "lm.scoring": MODEL,
    "lm.tasks": {*MODEL, "lm.scoring"},
    "lm.training": {*MODEL, "lm.runs", "lm.scoring", "lm.tasks", "configs.rules"},
    "lm.run": {"lm", "configs"},
    "configs": {"lm.errors"},
    "experiments": {"lm", "configs.base", "configs.catalogue", "configs.rules", "configs.state_tracking"},
    "launch": {"lm", "configs", "experiments"},
}
OURS = ("lm", "configs", "experiments", "launch", "tests")

SOURCES = [
    ROOT / "launch.py",
    *(
        path
        for directory in ("lm", "configs", "experiments", "tests", ".ci")
        for path in sorted((ROOT / directory).rglob("*.py"))
    ),
]


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path, top_level_only=False):
    """Dotted names of the modules that a file imports; `from lm import text` gives lm.data.text."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            is_ours = node.module.split(".")[0] in OURS
            modules = {name for name in names if is_ours and is_module(name)}
            found |= modules or {node.module}
    return found


def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def files_in(directory):
    return [path for path in SOURCES if path.is_relative_to(ROOT / directory)]


def place_of(module):
    """The row of MAY_IMPORT that a module belongs to: the longest name that begins its own; "" if there is none."""
    return max((place for place in MAY_IMPORT if f"{module}.".startswith(f"{place}.")), key=len, default="")


def test_every_module_has_a_place():
    modules = {name_of(path) for path in SOURCES} - {"lm", ".ci.gate"}
    assert {name for name in modules if not place_of(name) and not name.startswith("tests.")} == set()


@pytest.mark.parametrize("path", [path for path in SOURCES if place_of(name_of(path))], ids=name_of)
def test_imports_go_one_way(path):
    own = place_of(name_of(path))
    ours = {name for name in imports(path) if name.split(".")[0] in OURS}
    allowed = MAY_IMPORT[own] | {own}
    assert {name for name in ours if not any(f"{name}.".startswith(f"{place}.") for place in allowed)} == set()


@pytest.mark.parametrize("path", files_in("lm"), ids=name_of)
def test_lm_reads_no_flags(path):
    forbidden = {"absl.flags", "absl.app", "ml_collections.config_flags"}
    source = ast.parse(path.read_text(encoding="utf-8"))
    names = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert not (imports(path) | names) & forbidden


FINDERS = ("loading.py", "catalogue.py")  # read files


@pytest.mark.parametrize("path", [path for path in files_in("configs") if path.name not in FINDERS], ids=name_of)
def test_configs_import_only_ml_collections_errors_and_configs(path):
    harmless = {"collections", "dataclasses", "importlib", "inspect", "math", "operator", "typing"}  # none reads files
    names = imports(path) - {"lm.errors"}
    assert {name.split(".")[0] for name in names} <= {"ml_collections", "configs"} | harmless


@pytest.mark.parametrize("name", ["launch.py", "configs/loading.py"])
def test_nothing_heavy_is_imported_before_the_config_is_known_to_be_valid(name):
    names = imports(ROOT / name, top_level_only=True) - {"configs.loading", "experiments"}
    assert not {each.split(".")[0] for each in names} & {"jax", "flax", "optax", "numpy", "experiments", "orbax"}


@pytest.mark.parametrize("path", files_in("lm"), ids=name_of)
def test_optional_modules_are_imported_where_they_are_used(path):
    roots = {name.split(".")[0] for name in imports(path, top_level_only=True)}
    slow = {"matplotlib", "tensorflow_datasets", "orbax", "tensorboard", "tqdm", "torch"}
    assert not roots & slow


DANGEROUS_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "jsonpickle", "tarfile"}
DANGEROUS_CALLS = {"eval", "exec", "compile", "__import__"}
DANGEROUS_METHODS = {  # (what it is called on, ""; name): those that run or unpack what they are given
    ("os", "system"), ("os", "popen"), ("torch", "load"), ("yaml", "load"), ("np", "load"), ("numpy", "load"),
    ("", "extract"), ("", "extractall"), ("", "read_pickle"),
}  # fmt: skip


def dangers(source: str) -> list[str]:
    """What in a module's source could run, or unpack to a path of, what a file says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in DANGEROUS_MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if (node.module or "").partition(".")[0] in DANGEROUS_MODULES else []
        elif isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id in DANGEROUS_CALLS:
                found.append(function.id)
            if isinstance(function, ast.Attribute):
                owner = function.value.id if isinstance(function.value, ast.Name) else ""
                found += [function.attr] if {(owner, function.attr), ("", function.attr)} & DANGEROUS_METHODS else []
            found += ["shell"] if any(keyword.arg == "shell" for keyword in node.keywords) else []
    return found


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from dill import loads", "eval(x)", "exec(x)", "compile(x, '', 'exec')", "os.system(x)",
     "np.load(x)", "torch.load(x)", "archive.extractall()", "archive.extract(x)", "subprocess.run(x, shell=True)",
     "yaml.load(x)"],
)  # fmt: skip
def test_dangers_are_found(source):
    assert len(dangers(source)) == 1


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_can_run_what_it_reads(path):
    assert dangers(path.read_text(encoding="utf-8")) == []
