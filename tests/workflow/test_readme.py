"""What the README says: its code runs, and what it names is there."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pandas as pd
import pytest
import yaml

from learning_geometry import __version__
from learning_geometry.claims.studies import STUDIES
from learning_geometry.failures import NOT_MEASURED
from learning_geometry.files import read_table
from learning_geometry.paths import ARTIFACTS
from learning_geometry.tables import summary
from learning_geometry.tables import tidy as table
from tests.own import own

from .conftest import FIGURES, REPOSITORY, environment, tiny_config

README, CONTRIBUTING, RESULTS, FIGURES_BY_STUDY = (
    (REPOSITORY / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "results/README.md", "docs/figures.md")
)
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README + CONTRIBUTING, re.MULTILINE | re.DOTALL)


def inline(text):
    """What stands in backticks, outside of blocks of code."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


INLINE = inline(README + CONTRIBUTING)
SHELL = [line for language, block in BLOCKS if language == "bash" for line in block.splitlines()]
MEASUREMENT = next(block for language, block in BLOCKS if language == "python" and "def measure(" in block)
MEASUREMENT_FILE = next(text for text in INLINE if text.endswith("/stable_rank.py"))
SNIPPETS = [block for language, block in BLOCKS if language == "python" and block in README]
RULES = re.findall(r"^rule (\w+):", "".join(p.read_text() for p in (REPOSITORY / "workflow/rules").glob("*.smk")), re.M)


@pytest.fixture(scope="module")
def as_copying(finished, tmp_path_factory):
    """The finished run under the names that the README uses."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(finished[0].folder / "results/tiny", folder / "results/copying")
    shutil.copytree(finished[0].folder / "results/figures", folder / "results/figures")
    for claims in (finished[0].folder / "results").glob("claims.*"):
        shutil.copy(claims, folder / "results")
    config = tiny_config()
    (folder / "config").mkdir()
    (folder / "config/config.yaml").write_text(
        yaml.safe_dump({"experiments": {"copying": config["experiments"]["tiny"]}})
    )
    return folder


CHECKS = {
    "pd.read_parquet": """
assert sorted(final["data"]) == ["in_distribution", "out_of_distribution"]
assert set(final["step"]) == {40} and (final["low"] < final["high"]).all()
""",
    "Run(": """
assert {"singular_value", "effective_rank"} <= set(table["quantity"]) and set(table["step"]) == {0, 20, 40}
assert last == 40 and attention.shape == (10, 1, 24, 24) and torch.allclose(attention.sum(-1), torch.ones(()))
assert logits.shape == (10, 24, 8)
""",
}
"""What must hold after a snippet, by a text that tells it from the others."""


def test_every_snippet_is_checked():
    assert len(SNIPPETS) == len(CHECKS)
    assert all(sum(sign in snippet for snippet in SNIPPETS) == 1 for sign in CHECKS)


@pytest.mark.parametrize("sign", CHECKS)
def test_a_snippet_runs(sign, as_copying):
    snippet = next(snippet for snippet in SNIPPETS if sign in snippet)
    process = subprocess.run(
        [sys.executable, "-c", snippet + CHECKS[sign]],
        cwd=as_copying,
        capture_output=True,
        text=True,
        env=environment() | {"PYTHONPATH": str(REPOSITORY / "src")},
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert "Empty DataFrame" not in process.stdout


def test_the_example_measurement_needs_its_file_and_its_entry_only(editable):
    assert MEASUREMENT_FILE == "src/learning_geometry/measurements/runs/stable_rank.py"
    (editable.folder / MEASUREMENT_FILE).write_text(MEASUREMENT)
    (entry,) = [text for text in INLINE if text.startswith("stable_rank:")]
    config = tiny_config()
    config["experiments"]["tiny"]["measurements"] |= yaml.safe_load(entry)
    editable.write_config(config)
    planned = editable.planned()
    assert planned["measure"] == 2 and "train" not in planned
    editable.snakemake("--cores", "2", "results/tiny/summary.parquet")

    measured = read_table(editable.folder / "results/tiny/seed-0/stable_rank.parquet")
    table.check_table(measured)
    assert {"embedding", "layers.0.attention.query", "readout"} <= set(measured["part"])
    assert set(measured["null"]) == {"", "untrained"}
    assert measured["value"].between(1, 8).all()  # the rank of matrices 8 wide
    first = measured[measured["step"] == 0]
    assert first["value"].nunique() == first["part"].nunique()
    assert "stable_rank" in set(read_table(editable.folder / "results/tiny/summary.parquet")["quantity"])


def test_the_example_of_a_derived_quantity_derives_it(finished):
    (block,) = [block for language, block in BLOCKS if language == "python" and "DERIVED_FROM" in block]
    names = {}
    exec(block, names)
    runs = read_table(finished[0].folder / "results/tiny/runs.parquet")
    derived = names["derive"](runs)
    table.check_table(derived)
    table.check_other_seeds(derived, "all", "loss_fall")
    assert set(derived["seed"]) == {0, 1} and set(derived["data"]) == {"in_distribution", "out_of_distribution"}


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_every_link_of_the_documents_leads_somewhere():
    for path in [REPOSITORY / "results/README.md", *(REPOSITORY / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^):#]+)\)", path.read_text()):
            assert (path.parent / link).exists(), f"{path}: {link}"


def test_every_rule_of_claims_is_listed():
    for path in (REPOSITORY / "src/learning_geometry/claims/rules").glob("[a-z]*.py"):
        if path.stem in own("rules"):
            summary = ast.get_docstring(ast.parse(path.read_text())).partition("\n")[0]
            assert f"| `{path.stem}` | {summary} |" in CONTRIBUTING


def test_every_make_target_exists():
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split())
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    named = {text.split()[1] for text in [*INLINE, *SHELL] if text.startswith("make ")}
    assert named == targets
    script = (REPOSITORY / ".ci/run").read_text()
    assert set(re.search(r"for target in (.*);", script).group(1).split()) == {
        "lint",
        "test",
        "test-kernels",
        "test-slow",
    }
    assert os.access(REPOSITORY / ".ci/run", os.X_OK)


def named_paths():
    """Every path that the README names, in links, in text or on a command line."""
    words = [word for text in [*INLINE, *SHELL] for word in text.split()]
    links = re.findall(r"\]\(([^):]+)\)", README + CONTRIBUTING)
    # a path has a folder, or is a file of the root with a suffix; options, URLs and dotted names are none
    return {w for w in words if re.fullmatch(r"[\w.<>-]+(/[\w.<>-]+)+", w)} | set(links) | {"environment.yml"}


def test_every_path_exists(as_copying):
    made_elsewhere = {"results/report.html", "results/paper", "results/archive.tar.gz", "results/redrawn"}
    made_elsewhere |= {".venv/bin/activate", ".venv/bin/snakemake"}
    package = REPOSITORY / "src/learning_geometry"
    modules = {path.stem for path in [*package.rglob("*.py"), *package.iterdir()]}
    paths = named_paths()
    assert len(paths) > 20
    for path in sorted(paths - {MEASUREMENT_FILE} - made_elsewhere):
        if path.startswith("results/") and path != "results/README.md":
            assert (as_copying / path).exists(), path
        elif "<name>" in path:
            assert (REPOSITORY / path).parent.is_dir(), path
        else:
            assert (REPOSITORY / path).exists(), path
    assert "results: results/paper" in (REPOSITORY / "config/paper.yaml").read_text()
    assert "results/report.html" in (REPOSITORY / "Makefile").read_text()
    dotted = {name for text in [*INLINE, *SHELL] for name in re.findall(r"learning_geometry\.(\w+)", text)}
    assert dotted and dotted <= modules


def test_the_table_of_figures_names_what_the_workflow_draws(finished):
    rows = re.findall(r"^\|.*\| `(\w+)` \| `results/figures/(\w+)\.pdf` \|$", FIGURES_BY_STUDY, re.MULTILINE)
    assert [rule for rule, _ in rows] == [f"figure_{figure}" for _, figure in rows]
    # a series is no part of the tiny run
    drawn = {figure for _, figure in rows} - {"activation_ranks_by_step"}
    assert drawn == set(FIGURES)
    default = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    of_any_checkpoints = {"series_audit", "matrix_spectra"}
    assert drawn - of_any_checkpoints == set(default["figures"])
    assert all((finished[0].folder / f"results/figures/{figure}.pdf").exists() for figure in drawn)


def test_the_targets_of_snakemake_exist():
    assert "snakemake --cores N orthogonal_subspaces" in INLINE
    listed = re.findall(r"^- `(\w+)`: ", README, re.MULTILINE)
    assert listed == [study.name for study in STUDIES]


def test_the_table_of_columns_is_complete():
    rows = re.findall(r"^\| (both|runs|summary) \| (.*?) \|", RESULTS, re.MULTILINE)
    named = {"runs": set(), "summary": set()}
    for where, columns in rows:
        for key in named if where == "both" else [where]:
            named[key] |= set(re.findall(r"`(\w+)`", columns))
    assert named == {"runs": set(table.COLUMNS), "summary": set(summary.COLUMNS)}


def test_what_the_columns_may_hold_is_listed(finished):
    results = finished[0].folder / "results"
    rows = pd.concat([read_table(path) for path in sorted(results.glob("*/*.parquet"))])
    rows = rows[rows["quantity"] != NOT_MEASURED]  # whose data is a reason
    listed = set(inline(RESULTS))
    for column in ("unit", "interval"):
        assert set(rows[column].dropna()) - {""} <= listed, column
    # of test sets that are numbered, one is listed
    data = {re.sub(r"^markers_\d", "markers_2", name) for name in rows["data"]}
    assert data - {""} <= listed


def test_how_a_task_and_a_model_are_added_is_complete():
    for folder, name in (("tasks", "copying"), ("models", "transformer")):
        text = (REPOSITORY / f"src/learning_geometry/{folder}/{name}.py").read_text()
        (paragraph,) = [part for part in CONTRIBUTING.split("\n\n") if f"learning_geometry/{folder}/{name}.py" in part]
        for word in re.findall(r"`(\w+)`", paragraph.partition(f"{folder}/{name}.py")[0]):
            assert re.search(rf"^(def )?{word}\b", text, re.MULTILINE), word


def test_the_slurm_profile_has_the_section_that_the_readme_names():
    assert {"profiles/slurm/config.yaml", "slurm_account", "slurm_partition", "default-resources"} <= set(INLINE)
    profile = yaml.safe_load((REPOSITORY / "profiles/slurm/config.yaml").read_text())
    assert {"mem_mb", "runtime"} <= profile["default-resources"].keys()
    local = re.search(r"^localrules:\n((?:    \w+,\n)+)", (REPOSITORY / "Snakefile").read_text(), re.M).group(1)
    for rule in set(RULES) - set(re.findall(r"\w+", local)):
        of_rule = rf'mem_mb=memory_of\("{rule}"\),\s+runtime=time_of\("{rule}"\),'
        assert any(re.search(of_rule, file.read_text()) for file in (REPOSITORY / "workflow/rules").glob("*.smk")), rule


def test_results_readme_names_every_artifact():
    text = (REPOSITORY / "results/README.md").read_text()
    for template in ARTIFACTS.values():
        assert f"| `{template.replace('{', '<').replace('}', '>')}` |" in text


def test_the_citation_and_the_license_agree_with_the_package():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "references"} <= citation.keys()
    assert str(citation["version"]) == project["version"] == __version__
    assert citation["license"] == project["license"] == "MIT"
    assert (REPOSITORY / "LICENSE").read_text().startswith("MIT License")
    assert "# Changelog\n" in (REPOSITORY / "CHANGELOG.md").read_text()
