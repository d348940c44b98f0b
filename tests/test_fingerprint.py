import ast
import os
import shutil
import textwrap
import time
from pathlib import Path

import pytest

import learning_geometry
from learning_geometry.fingerprint import code_fingerprint, imported_modules
from learning_geometry.known import Known

MODULES = {
    "__init__.py": '"""A package."""',
    "base.py": """
        LIMIT = 3
        def double(x: int) -> int:
            return 2 * x
    """,
    "unused.py": "VALUE = 1",
    "lazy.py": "VALUE = 1",
    "tasks/__init__.py": "from ..registry import NAMES",
    "tasks/copying.py": """
        \"\"\"Copying.\"\"\"
        import math
        from pack.base import double

        SIZE = 3
        \"\"\"Of what.\"\"\"


        class Task:
            \"\"\"A task.\"\"\"

            def run(self, x):
                \"\"\"Run.\"\"\"
                # why
                return double(x) + math.floor(x)
    """,
    "tasks/other.py": "from . import copying\nfrom .copying import Task",
    "registry.py": "NAMES = ['copying']",
    "measure.py": """
        from pack import tasks
        from pack.tasks import copying as task
        def measure():
            import pack.lazy
            return task, pack.lazy, tasks
    """,
    "star.py": "from pack.tasks import *",
}


@pytest.fixture
def package(tmp_path):
    root = tmp_path / "pack"
    for name, source in MODULES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
    return root


def edit(path, old, new):
    source = path.read_text()
    assert source.count(old) == 1
    path.write_text(source.replace(old, new))


def changes(package, root, name, old, new):
    before = code_fingerprint(root, package=package)
    edit(package / name, old, new)
    return code_fingerprint(root, package=package) != before


def test_the_fingerprint_is_the_same_for_the_same_code_anywhere(package, tmp_path):
    elsewhere = shutil.copytree(package, tmp_path / "elsewhere" / "pack")
    here = code_fingerprint("pack.measure", package=package)
    assert here == code_fingerprint("pack.measure", package=elsewhere)
    assert len(here) == 16
    assert int(here, 16) >= 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Copying."""', '"""Copying, reworded\n\nat length."""'),
        ('"""A task."""', '"""One task."""'),
        ('"""Run."""', ""),
        ('"""Of what."""', '"""Of the task."""'),
        ("# why", "# because"),
        ("# why", ""),
        ("double(x) + math.floor(x)", "(\n            double( x )\n            + math.floor(x,)\n        )"),
        ("import math\n", "import math\n\n\n# a comment\n\n"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(package, old, new):
    assert not changes(package, "pack.tasks.copying", "tasks/copying.py", old, new)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("tasks/copying.py", "SIZE = 3", "SIZE = 4"),
        ("tasks/copying.py", "double(x) +", "double(x) -"),
        ("tasks/copying.py", "import math", "import math as m"),
        ("base.py", "LIMIT = 3", "LIMIT = 3.0"),  # imported with from ... import ...
        ("base.py", "x: int", "x: float"),  # annotations are checked in tests and read by people
        ("tasks/__init__.py", "import NAMES", "import NAMES as names"),  # the package around it
        ("registry.py", "'copying'", "'copies'"),  # imported by that package, relatively
        ("__init__.py", '"""A package."""', "VERSION = 1"),
    ],
)
def test_an_edit_to_imported_code_counts(package, name, old, new):
    assert changes(package, "pack.tasks.copying", name, old, new)


@pytest.mark.parametrize("name", ["unused.py", "lazy.py"])
def test_an_edit_to_other_code_does_not_count(package, name):
    assert not changes(package, "pack.tasks.copying", name, "VALUE = 1", "VALUE = 2")


def test_imports_are_followed_through_others_and_inside_functions(package):
    assert imported_modules("pack.measure", package=package) == (
        "pack",
        "pack.base",
        "pack.lazy",
        "pack.measure",
        "pack.registry",
        "pack.tasks",
        "pack.tasks.copying",
    )
    assert changes(package, "pack.measure", "base.py", "2 * x", "3 * x")
    assert changes(package, "pack.measure", "lazy.py", "VALUE = 1", "VALUE = 2")


@pytest.mark.parametrize(
    ("statement", "module"),
    [
        ("import pack.tasks.other", "pack.tasks.other"),
        ("import pack.tasks.other as other", "pack.tasks.other"),
        ("from pack.tasks import other", "pack.tasks.other"),
        ("from pack.tasks.other import Task", "pack.tasks.other"),
        ("from pack import unused as u, base", "pack.unused"),
        ("try:\n    import pack.unused\nexcept ImportError:\n    pass", "pack.unused"),
        ("from pack.star import copying", "pack.tasks.other"),
    ],
)
def test_every_form_of_import_is_seen_in_a_script(package, tmp_path, statement, module):
    script = tmp_path / "script.py"
    script.write_text("import os\n")
    assert imported_modules(script, package=package) == ()
    script.write_text(statement + "\n")
    found = imported_modules(script, package=package)
    assert module in found
    assert "pack" in found


def test_relative_imports_start_from_the_package_around(package):
    found = imported_modules("pack.tasks.other", package=package)
    assert {"pack.tasks.copying", "pack.base", "pack.registry"} <= set(found)
    assert "pack.copying" not in found


def test_a_script_counts_by_its_code_and_name_not_its_place(package, tmp_path):
    script = tmp_path / "train.py"
    script.write_text("from pack import base\nprint(base)  # print it\n")
    before = code_fingerprint(script, package=package)
    assert code_fingerprint(str(script), package=package) == before
    moved = tmp_path / "moved" / "train.py"
    moved.parent.mkdir()
    shutil.copy(script, moved)
    assert code_fingerprint(moved, package=package) == before
    edit(moved, "  # print it", "")
    assert code_fingerprint(moved, package=package) == before
    edit(moved, "print(base)", "repr(base)")
    assert code_fingerprint(moved, package=package) != before
    edit(package / "base.py", "LIMIT = 3", "LIMIT = 4")
    assert code_fingerprint(script, package=package) != before
    with pytest.raises(ValueError, match="same file name"):
        code_fingerprint(script, moved, package=package)


def test_the_order_of_roots_does_not_matter(package):
    one = code_fingerprint("pack.base", "pack.tasks.copying", package=package)
    assert one == code_fingerprint("pack.tasks.copying", "pack.base", "pack.base", package=package)
    assert one != code_fingerprint("pack.base", package=package)


def test_moving_code_between_modules_counts(package):
    before = code_fingerprint("pack.unused", "pack.base", package=package)
    (package / "unused.py").rename(package / "renamed.py")
    assert code_fingerprint("pack.renamed", "pack.base", package=package) != before


def test_import_cycles_end(package):
    (package / "one.py").write_text("import pack.two")
    (package / "two.py").write_text("import pack.one")
    assert imported_modules("pack.one", package=package) == ("pack", "pack.one", "pack.two")


def test_what_does_not_exist_is_named(package, tmp_path):
    with pytest.raises(ValueError, match=r"pack\.absent: no such module .*give a dotted name"):
        code_fingerprint("pack.absent", package=package)
    with pytest.raises(ValueError, match="numpy: no such module"):
        code_fingerprint("numpy", package=package)
    with pytest.raises(ValueError, match=r"absent\.py: no such script"):
        code_fingerprint(tmp_path / "absent.py", package=package)
    (package / "base.py").write_text("from pack.absent import x")
    with pytest.raises(ValueError, match=r"base\.py: imports pack\.absent, which .* correct the import"):
        code_fingerprint("pack.base", package=package)
    (package / "base.py").write_text("x = 1\ny = = 2\n")
    with pytest.raises(ValueError, match=r"base\.py, line 2: not valid Python"):
        code_fingerprint("pack.base", package=package)


def test_versions_and_modules_without_numbers_do_not_count(package):
    (package / "__init__.py").write_text('"""A package."""\n\n__version__ = "1.0"\n')
    (package / "progress.py").write_text("from pack import lazy\n")
    (package / "base.py").write_text("from pack import progress\n")
    before = code_fingerprint("pack.base", package=package)
    assert set(imported_modules("pack.base", package=package)) == {"pack", "pack.base"}
    edit(package / "__init__.py", "1.0", "2.0")
    edit(package / "progress.py", "import lazy", "import unused")
    edit(package / "lazy.py", "1", "2")
    assert code_fingerprint("pack.base", package=package) == before
    edit(package / "__init__.py", '"2.0"', '"2.0" + print()')
    assert code_fingerprint("pack.base", package=package) != before


def test_what_is_known_of_files_gives_the_same_fingerprint(package, tmp_path):
    old = time.time() - 10
    fresh = code_fingerprint("pack.measure", package=package)
    for _ in range(2):
        known = Known(tmp_path / "known.json")
        assert code_fingerprint("pack.measure", package=package, known=known) == fresh
        known.save()
    edit(package / "base.py", "2 * x", "3 * x")
    os.utime(package / "base.py", (old, old))
    assert code_fingerprint("pack.measure", package=package, known=Known(tmp_path / "known.json")) != fresh


SCRIPTS = Path(learning_geometry.__file__).parents[2] / "workflow/scripts"
CAPTURE = {
    *("files", "model_files", "summed", "tasks", "models"),
    *("measurements.common.language_capture", "measurements.common.language_run"),
    *(f"geometry.{module}" for module in ("moments", "head_products", "rounding")),
}
MAY_USE = {
    "make_dataset": {"files", "tasks"},
    "train": {
        "files",
        "model_options",
        "finite",
        "seeding",
        "tasks",
        "models",
        "training",
        "tables.tidy",
        "tables.renamed",
        "geometry.rounding",
    },
    "measure": {
        "failures",
        "model_options",
        "sources.grid",
        "files",
        "finite",
        "seeding",
        "tasks",
        "models",
        "training",
        "geometry.rounding",
    }
    | {"measurements.common.run", "tables.tidy", "tables.renamed"},
    "dequantise": {"files", "model_files", "models", "tasks"}
    | {f"geometry.{module}" for module in ("head_products", "rounding")},
    "capture_text": CAPTURE,
    "capture_prompts": CAPTURE | {"seeding"},
    "summarize": {"failures", "files", "finite", "geometry", "tables"},
    "draw_figure": {"failures", "files", "figures.style", "tables.progress_measures"},
    "judge_claims": {
        "failures",
        "files",
        "finite",
        "claims",
        "tables.tidy",
        "tables.renamed",
        "geometry.rounding",
        "geometry.uncertainty",
    },
}


@pytest.mark.parametrize("script", MAY_USE)
def test_a_script_covers_no_more_than_it_uses(script):
    """An estimator of runs does not recapture language models, a figure trains nothing again, and so on."""
    may = MAY_USE[script]
    around = {name.rsplit(".", i)[0] for name in may for i in range(name.count(".") + 1)} | {""}
    for name in imported_modules(SCRIPTS / f"{script}.py"):
        inside = name.removeprefix("learning_geometry").removeprefix(".")
        assert inside in around or any(f"{inside}.".startswith(f"{each}.") for each in may), name


def test_captures_use_no_estimator():
    for script in ("capture_text", "capture_prompts"):
        found = {name for name in imported_modules(SCRIPTS / f"{script}.py") if ".measurements.common." in name}
        assert found == {f"learning_geometry.measurements.common.language_{name}" for name in ("capture", "run")}


def test_the_real_package_is_covered_and_each_module_is_parsed_once(monkeypatch):
    found = imported_modules("learning_geometry.tasks.copying")
    assert {"learning_geometry", "learning_geometry.seeding", "learning_geometry.tasks.batch"} <= set(found)
    root = Path(learning_geometry.__file__).parent
    every = [
        ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in root.rglob("*.py")
    ]
    assert set(imported_modules(*every)) == set(every)
    first = code_fingerprint(*every)

    # parsing is what takes time, and every rule of a workflow asks anew
    def parse(source):
        raise AssertionError(f"parsed again: {source[:80]!r}")

    with monkeypatch.context() as patch:
        patch.setattr(ast, "parse", parse)
        again = code_fingerprint(*every)
    assert again == first
