"""Who may import whom, and which file formats may be used where."""

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import learning_geometry
from learning_geometry.fingerprint import imported_modules
from tests.own import is_own

PACKAGE = Path(learning_geometry.__file__).parent
REPOSITORY = PACKAGE.parents[1]

BASE = [
    *(
        "discovery",
        "failures",
        "files",
        "fingerprint",
        "forkserver",
        "finite",
        "known",
        "model_files",
        "model_options",
        "ownership",
        "paths",
        "progress",
        "summed",
    ),
    *("running", "seeding"),
]
TRAINING = ["base", "geometry", "sources", "tasks", "config", "models", "training"]
MAY_IMPORT = {
    "base": ["base"],
    "geometry": ["geometry"],
    # of tables alone: what makes them is out of reach
    "tables": ["base", "geometry", "tables"],
    "figures": ["base", "geometry", "tables", "figures"],
    "claims": ["base", "geometry", "tables", "claims"],
    "tasks": ["base", "tasks"],
    "config": ["base", "sources", "tasks", "config"],
    "models": TRAINING[:-1],
    "training": TRAINING,
    "dictionaries": [*TRAINING, "dictionaries"],
    "measurements": [*TRAINING, "dictionaries", "tables", "measurements"],
    # without the config: what tools write is a fact about files
    "sources": ["base", "sources"],
    "export": [*TRAINING, "export"],
    "archive": ["base", "sources", "tasks", "config", "tables", "archive"],
    "planning": ["base", "sources", "tasks", "config", "geometry", "tables", "claims", "planning"],
    "slurm": ["slurm"],
    "check": ["base", "sources", "tasks", "config", "geometry", "tables", "claims", "planning", "check"],
}
"""The floors of the package that each floor may use, directly or through others."""

OUTSIDE = {
    "base": {"numpy", "pandas", "pyarrow", "safetensors", "jaxtyping", "xxhash", "threadpoolctl"},
    "geometry": {"torch", "numpy", "scipy", "sklearn", "jaxtyping"},
    "tasks": {"numpy", "jaxtyping", "tokenizers"},
    "sources": {"torch", "numpy", "yaml", "safetensors"},
}
"""What the lowest floors may import besides the standard library."""

WITHOUT_TORCH = ["base", "tasks", "tables", "config", "archive", "planning", "check", "claims", "figures"]
USES_TORCH = {"torch", "torchvision", "safetensors.torch", "transformers", "curvlinops"}
KNOWS_SAFETENSORS = [
    "files",
    "sources.export",
    "training.checkpoints",
    "model_files.headers",
    "models.language.weights",
]
SAVES_FOR_TORCH = ["sources.export"]
"""What may call torch.save: of tensors and plain values, for tools that read nothing else."""
PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}


def modules(package):
    """Every module of the package: dotted name without the package's, and syntax tree."""
    for path in filter(is_own, sorted(package.rglob("*.py"))):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        yield name, ast.parse(path.read_text())


def floor_of(name):
    top = name.split(".")[0]
    return "base" if top in BASE else top


def outside_imports(tree, own):
    """Dotted names of all modules imported from outside the package."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] != own}


def top_level(names):
    return {name.split(".")[0] for name in names}


def floor_violations(package):
    """One line for every import that the floors forbid."""
    own, found = package.name, []
    trees = dict(modules(package))
    outside = {name: outside_imports(tree, own) for name, tree in trees.items()}
    for name in trees:
        if not name:
            if outside[name] or len(imported_modules(own, package=package)) > 1:
                found.append(f"{own}: __init__.py imports something; every module would depend on it")
            continue
        floor = floor_of(name)
        if floor not in MAY_IMPORT:
            found.append(f"{name}: belongs to no floor; name its floor in this test")
            continue
        inside = [each.removeprefix(f"{own}.") for each in imported_modules(f"{own}.{name}", package=package)]
        inside.remove(own)
        found += [
            f"{name}: imports {other}, and {floor} may only use {MAY_IMPORT[floor]}"
            for other in inside
            if floor_of(other) not in MAY_IMPORT[floor]
        ]
        allowed = OUTSIDE.get(floor)
        if allowed is not None:
            strange = top_level(outside[name]) - allowed - set(sys.stdlib_module_names)
            found += [f"{name}: imports {other}, and {floor} may only use {sorted(allowed)}" for other in strange]
        if floor in WITHOUT_TORCH:
            found += [
                f"{name}: imports torch through {other}"
                for other in inside
                if USES_TORCH & (outside[other] | top_level(outside[other]))
            ]
        if "safetensors" in top_level(outside[name]) and name not in KNOWS_SAFETENSORS:
            found.append(f"{name}: imports safetensors; use learning_geometry.files")
    return found


def pickle_violations(name, tree):
    """One line for every way in which a file could read or write a pickle."""
    imports = outside_imports(tree, "")
    found = [f"{name}: imports {other}, which pickles" for other in top_level(imports) & PICKLES]
    found += [
        f"{name}: imports {other} by itself; call it as torch.{other.split('.')[1]}"
        for other in imports & {"torch.load", "torch.save"}
    ]
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        called = ast.unparse(node.func)
        arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called == "torch.load" and arguments.get("weights_only") != "True":
            found.append(f"{name}, line {node.lineno}: torch.load without weights_only=True")
        if (called == "torch.save" and name not in SAVES_FOR_TORCH) or node.func.attr in ("to_pickle", "read_pickle"):
            found.append(f"{name}, line {node.lineno}: {called} pickles; use learning_geometry.files")
        if arguments.get("allow_pickle", "False") != "False":
            found.append(f"{name}, line {node.lineno}: {called} with allow_pickle")
    return found


def test_the_floors_hold():
    assert len(list(modules(PACKAGE))) > 10
    assert floor_violations(PACKAGE) == []


def test_nothing_is_pickled():
    scripts = [*REPOSITORY.glob("workflow/scripts/*.py"), *REPOSITORY.glob("benchmarks/*.py")]
    files = [*modules(PACKAGE), *((path.name, ast.parse(path.read_text())) for path in scripts)]
    assert [line for name, tree in files for line in pickle_violations(name, tree)] == []


def test_what_the_snakefile_and_the_figures_import_is_free_of_torch():
    names = [name for name, _ in modules(PACKAGE) if name and floor_of(name) in WITHOUT_TORCH]
    assert {"config", "tasks.copying"} <= set(names)
    lines = [f"import learning_geometry.{name}" for name in names]
    lines += ["import sys", "print('torch' in sys.modules)"]
    process = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
    )
    assert (process.stdout, process.stderr) == ("False\n", "")


# --- the checks themselves, on a small package that breaks one rule at a time

SOUND = {
    "__init__.py": '"""A package."""\n__version__ = "1"',
    "seeding.py": "import numpy as np",
    "files.py": "import safetensors.numpy\nimport pandas",
    "geometry/__init__.py": "",
    "geometry/spectra.py": "import torch\nimport scipy.linalg",
    "tasks/__init__.py": "from importlib import import_module",
    "tasks/copying.py": "from pack.seeding import seeded",
    "config.py": "import yaml\nfrom pack import tasks",
    "models/__init__.py": "import torch",
    "training/__init__.py": "",
    "training/checkpoints.py": "import safetensors\nfrom pack import files, models",
    "measurements/__init__.py": "",
    "tables/__init__.py": "",
    "tables/tidy.py": "import pandas",
    "measurements/sharpness.py": "from pack.geometry import spectra\nfrom pack.training import checkpoints",
    "figures/__init__.py": "",
    "figures/timeline.py": "import matplotlib\nfrom pack.tables.tidy import COLUMNS",
}


def package_with(tmp_path, changed):
    for name, source in (SOUND | changed).items():
        path = tmp_path / "pack" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
    return tmp_path / "pack"


def test_a_sound_package_passes(tmp_path):
    assert floor_violations(package_with(tmp_path, {})) == []


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("seeding.py", "from pack.tasks import copying", "seeding: imports tasks.copying"),
        ("seeding.py", "import yaml", "seeding: imports yaml"),
        ("files.py", "import torch", "files: imports torch through files"),
        ("files.py", "import safetensors.torch", "files: imports torch through files"),
        ("geometry/spectra.py", "from pack.seeding import seeded", "geometry.spectra: imports seeding"),
        ("geometry/spectra.py", "import pandas", "geometry.spectra: imports pandas"),
        ("geometry/spectra.py", "from ..seeding import seeded", "geometry.spectra: imports seeding"),
        ("tasks/copying.py", "def f():\n    import torch", "tasks.copying: imports torch"),
        ("tasks/copying.py", "from pack.geometry import spectra", "tasks.copying: imports geometry.spectra"),
        ("tasks/copying.py", "from pack import config", "tasks.copying: imports config"),
        ("config.py", "import torch", "config: imports torch through config"),
        ("config.py", "from pack.models import build", "config: imports models"),
        ("models/__init__.py", "import pack.training", "models: imports training"),
        (
            "measurements/sharpness.py",
            "from pack.figures import timeline",
            "measurements.sharpness: imports figures.timeline",
        ),
        ("figures/timeline.py", "from torch import Tensor", "figures.timeline: imports torch through"),
        (
            "figures/timeline.py",
            "from pack.measurements.sharpness import x",
            "figures.timeline: imports measurements.sharpness, and figures may only",
        ),
        (
            "tables/tidy.py",
            "import torch",
            "figures.timeline: imports torch through tables.tidy",
        ),
        ("figures/timeline.py", "import safetensors", "figures.timeline: imports safetensors"),
        ("tables/tidy.py", "from pack.measurements import sharpness", "tables.tidy: imports measurements"),
        ("figures/timeline.py", "from pack.tasks import copying", "figures.timeline: imports tasks.copying"),
        ("stray.py", "", "stray: belongs to no floor"),
        ("__init__.py", "import numpy", "pack: __init__.py imports something"),
        ("__init__.py", "from pack import seeding", "pack: __init__.py imports something"),
    ],
)
def test_a_breach_of_the_floors_is_found(tmp_path, name, source, message):
    found = floor_violations(package_with(tmp_path, {name: source}))
    assert any(line.startswith(message) for line in found), found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import dumps",
        "def f():\n    import cloudpickle as c",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import torch\ntorch.load(path, weights_only=flag)",
        "from torch import load",
        "import torch\ntorch.save(x, path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import pandas as pd\npd.read_pickle(path)",
        "table.to_pickle(path)",
    ],
)
def test_a_pickle_is_found(source):
    assert len(pickle_violations("module", ast.parse(source))) == 1


def test_what_does_not_pickle_passes():
    source = "import torch\ntorch.load(path, weights_only=True)\nnp.load(path)\nfiles.load(path)"
    assert pickle_violations("module", ast.parse(source)) == []
