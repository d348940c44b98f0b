"""The pins of requirements*.txt, constraints.txt and environment.yml agree, and satisfy pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[1]
ON_CONDA = {"torch": "pytorch", "xxhash": "python-xxhash"}
"""Names that conda-forge and bioconda spell differently from PyPI."""


def pins(text):
    """The exactly pinned version of each package in a requirements file, and the lines that pin nothing."""
    pinned, loose = {}, []
    for line in (line.partition("#")[0].strip() for line in text.splitlines()):
        if not line or line.startswith("-"):
            continue
        requirement = Requirement(line)
        (specifier,) = requirement.specifier or [None]
        if specifier is None or specifier.operator != "==" or "*" in specifier.version:
            loose.append(line)
        else:
            pinned[canonicalize_name(requirement.name)] = specifier.version
    return pinned, loose


def disagreements(pyproject, requirements, development, environment, constraints=""):
    """One line for every pin that is missing, loose or at odds with another file."""
    project = tomllib.loads(pyproject)["project"]
    run = [Requirement(line) for line in project["dependencies"]]
    extras = [Requirement(line) for group in project.get("optional-dependencies", {}).values() for line in group]
    pinned, loose = pins(requirements)
    pinned_development, loose_development = pins(development)
    constrained, loose_constraints = pins(constraints)
    found = [f"{line}: not pinned with ==" for line in [*loose, *loose_development, *loose_constraints]]

    for where, wanted, available in [
        ("requirements.txt", run, pinned),
        ("requirements-dev.txt", extras, pinned | pinned_development),
    ]:
        for requirement in wanted:
            version = available.get(canonicalize_name(requirement.name))
            if version is None:
                found.append(f"{requirement.name}: in pyproject.toml and not in {where}")
            elif not requirement.specifier.contains(version):
                found.append(f"{requirement.name}: {where} has {version}, pyproject.toml wants {requirement}")
    known = {canonicalize_name(requirement.name) for requirement in [*run, *extras]}
    found += [f"{name}: pinned and not in pyproject.toml" for name in (pinned | pinned_development).keys() - known]
    found += [
        f"{name}: {version} and, in another file, {other[name]}"
        for other in (pinned_development, constrained)
        for name, version in (pinned | pinned_development).items()
        if other.get(name, version) != version
    ]

    conda = {}
    for line in yaml.safe_load(environment)["dependencies"]:
        for entry in line["pip"] if isinstance(line, dict) else [line]:
            name, _, version = entry.replace("==", "=").partition("=")
            conda[name.partition("[")[0].strip()] = version.strip()
    if not Requirement(f"python{project['requires-python']}").specifier.contains(conda.pop("python", "0")):
        found.append(f"python: environment.yml does not have {project['requires-python']}")
    here = {ON_CONDA.get(name, name): version for name, version in pinned.items()}
    found += [
        f"{name}: {here.get(name)} in requirements.txt, {conda.get(name)} in environment.yml"
        for name in sorted(here.keys() | conda.keys())
        if here.get(name) != conda.get(name)
    ]
    return found


def texts():
    names = [
        "pyproject.toml",
        "requirements.txt",
        "requirements-dev.txt",
        "environment.yml",
        "constraints.txt",
    ]
    return [(REPOSITORY / name).read_text() for name in names]


def test_the_pins_agree():
    assert disagreements(*texts()) == []


def test_the_files_pin_what_they_should():
    _, requirements, development, _, _ = texts()
    assert {"torch", "numpy", "snakemake"} <= pins(requirements)[0].keys()
    assert {"pytest", "ruff", "mypy"} <= pins(development)[0].keys()


PYPROJECT = """
[project]
requires-python = ">=3.11"
dependencies = ["numpy>=2.0", "snakemake[reports]>=9.0", "torch>=2.5"]
[project.optional-dependencies]
test = ["pytest>=8.0", "types-PyYAML>=6.0"]
"""
REQUIREMENTS = "-c constraints.txt\nnumpy==2.4.0  # why\nsnakemake[reports]==9.27.1\ntorch==2.13.0\n"
DEVELOPMENT = "-r requirements.txt\npytest==9.2.0\ntypes-PyYAML==6.0.12\n"
ENVIRONMENT = "dependencies: [python=3.11, numpy=2.4.0, snakemake=9.27.1, pytorch=2.13.0]"
CONSTRAINTS = "jinja2==3.1.6\nnumpy==2.4.0\n"


@pytest.mark.parametrize("file", ["Snakefile", "redraw.smk"])
def test_the_least_version_of_snakemake_is_the_pinned_one(file):
    (least,) = re.findall(r'^min_version\("([0-9.]+)"\)$', (REPOSITORY / file).read_text(), re.MULTILINE)
    pinned, _ = pins((REPOSITORY / "requirements.txt").read_text())
    assert least == pinned["snakemake"]
    assert f'"snakemake[reports]>={least}"' in (REPOSITORY / "pyproject.toml").read_text()


def test_files_that_agree_pass():
    assert disagreements(PYPROJECT, REQUIREMENTS, DEVELOPMENT, ENVIRONMENT, CONSTRAINTS) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (1, "numpy==2.4.0", "numpy>=2.4.0", "numpy>=2.4.0: not pinned with =="),
        (1, "numpy==2.4.0", "numpy", "numpy: not pinned with =="),
        (1, "numpy==2.4.0", "numpy==2.4.*", "numpy==2.4.*: not pinned with =="),
        (1, "torch==2.13.0", "", "torch: in pyproject.toml and not in requirements.txt"),
        (1, "torch==2.13.0", "torch==2.4.0", "torch: requirements.txt has 2.4.0"),
        (
            1,
            "torch==2.13.0",
            "torch==2.13.1",
            "pytorch: 2.13.1 in requirements.txt, 2.13.0 in environment.yml",
        ),
        (1, "torch==2.13.0", "torch==2.13.0\nscipy==1.17", "scipy: pinned and not in pyproject.toml"),
        (2, "pytest==9.2.0", "", "pytest: in pyproject.toml and not in requirements-dev.txt"),
        (2, "pytest==9.2.0", "pytest==7.0", "pytest: requirements-dev.txt has 7.0"),
        (2, "pytest==9.2.0", "pytest==9.2.0\nnumpy==2.4.1", "numpy: 2.4.1 and, in another file, 2.4.0"),
        (3, "numpy=2.4.0", "numpy=2.4.1", "numpy: 2.4.0 in requirements.txt, 2.4.1 in environment.yml"),
        (3, "numpy=2.4.0, ", "", "numpy: 2.4.0 in requirements.txt, None in environment.yml"),
        (3, "python=3.11", "python=3.10", "python: environment.yml does not have >=3.11"),
        (3, "python=3.11", "python=3.11, scipy=1", "scipy: None in requirements.txt, 1 in environment.yml"),
        (4, "numpy==2.4.0", "numpy==2.3.0", "numpy: 2.4.0 and, in another file, 2.3.0"),
    ],
)
def test_a_disagreement_is_found(file, old, new, message):
    contents = [PYPROJECT, REQUIREMENTS, DEVELOPMENT, ENVIRONMENT, CONSTRAINTS]
    assert old in contents[file]
    contents[file] = contents[file].replace(old, new)
    found = disagreements(*contents)
    assert any(line.startswith(message) for line in found), found
