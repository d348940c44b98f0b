"""What a module that a config names must hold, and must say of itself, before any job."""

import ast
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from learning_geometry import discovery
from learning_geometry.config import ConfigError, interfaces, needs_tables, validate
from learning_geometry.config.__main__ import main
from learning_geometry.config.interfaces import CALLED, derived_problems, interface_problems
from learning_geometry.config.needs import OF_LANGUAGE_MODELS, OF_RUNS, needs
from learning_geometry.config.needs_tables import BEGIN, END
from tests.own import own, own_summaries
from tests.test_config import MEASURE, Config, package, valid

__all__ = ["package"]  # the fixture

ROOT = Path(__file__).parents[1]
RUNS = "measurements/runs/mine.py"
TASK = "SETTINGS = {}\n" + "".join(f"def {name}({given}): ...\n" for name, given in CALLED["tasks"].items())


def problems(config: Config, files: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(config, files=files)
    return list(caught.value.problems)


def using(section: str) -> Config:
    """A config that uses a module `mine`."""
    config = valid()
    config.pop("language_models")
    config["figures"] = {"mine": {"experiments": ["copying"]}} if section == "figures" else {}
    change = {"measurements": {"mine": {}}} if section == "measurements" else {section: {"name": "mine"}}
    config["experiments"]["copying"] |= change if section != "figures" else {}
    return config


@pytest.mark.parametrize(
    ("section", "file", "source", "where", "says"),
    [
        ("measurements", RUNS, "SETTINGS = {}\n", "measurements.mine", "has no measure(); add measure(run, settings)"),
        ("measurements", RUNS, MEASURE, "measurements.mine", "has no SETTINGS, and so is no measurement; add it, or"),
        ("task", "tasks/mine.py", TASK.replace("def check", "def test"), "task.name", "no check(); add check("),
        ("task", "tasks/mine.py", TASK.replace("def errors(", "def mistakes("), "task.name",
         "has no errors(); add errors(predictions, test_set)"),
        ("model", "models/mine.py", "SETTINGS = {}\ndef initialise(): ...\n", "model.name", "has no forward(); add"),
        ("figures", "figures/mine.py", "REQUIRES = ()\n", "", "has no draw(); add draw(tables, options)"),
        ("figures", "figures/mine.py", "REQUIRES = ()\ndef draw(): ...\n", "", "has no caption; write "),
        ("figures", "figures/mine.py", "REQUIRES = ('sharpnes',)\n", "",
         "REQUIRES names sharpnes, and there is no such measurement; did you mean sharpness? correct it"),
        ("figures", "figures/mine.py", "REQUIRES = 'sharpness'\n", "", "REQUIRES is 'sharpness'; list names of"),
        ("figures", "figures/mine.py", "REQUIRES = (\n", "", "line 1: '(' was never closed"),
        ("figures", "figures/mine.py", "REQUIRES = tuple('ab')\n", "", "REQUIRES is computed; write a plain literal"),
        ("figures", "figures/mine.py", "SETTINGS = {'a': {'type': 'null'}}\n", "", "lacks default and description"),
    ],
)  # fmt: skip
def test_what_a_module_lacks_is_named_with_its_file(
    package: Path, section: str, file: str, source: str, where: str, says: str
) -> None:
    (package / file).write_text(source)
    (line,) = problems(using(section))
    assert line.startswith(f"experiments.copying.{where}: " if where else "figures.mine: ")
    assert str(package / file) in line and says in line


FIGURE = "REQUIRES = ('head_scores',)\ndef draw(tables, options): ...\n"


@pytest.fixture
def captioned(package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a figure of one's own, which has a caption."""
    shutil.copytree(interfaces.CAPTIONS, package / "report")
    (package / "report/mine.rst").write_text("Mine.")
    monkeypatch.setattr(interfaces, "CAPTIONS", package / "report")
    return package / "figures/mine.py"


def test_a_figure_with_its_caption_is_taken(captioned: Path) -> None:
    for more in ("", "MOST = {'experiments': 1}\n", "SWEPT = False\n"):
        captioned.write_text(FIGURE + more)
        validate(using("figures"))
    captioned.write_text(FIGURE + "SWEPT = True\n")
    assert problems(using("figures")) == [
        'figures.mine.experiments[0]: "copying" is no sweep; give experiments.copying a sweep, or leave it out'
    ]


@pytest.mark.parametrize("most", ["['experiments']", "{'layers': 1}", "{'experiments': 1.0}"])
def test_what_a_figure_can_show_at_most_are_numbers(captioned: Path, most: str) -> None:
    captioned.write_text(f"{FIGURE}MOST = {most}\n")
    config = using("figures")
    config["experiments"]["other"]["seeds"] = []
    # beside what else is wrong
    first, second = sorted(problems(config))
    assert first.startswith("experiments.other.seeds: ")
    assert second == f"figures.mine: {captioned}: MOST is {most}; use numbers for experiments, texts, prompts"


def test_functions_may_be_imported_assigned_or_chosen(package: Path) -> None:
    (package / RUNS).write_text("SETTINGS = {}\ntry:\n    from absent import measure\nexcept ImportError:\n    pass\n")
    assert interface_problems("measurements", "mine") == []
    (package / RUNS).write_text("SETTINGS = {}\nfrom absent import other as measure\n")
    assert interface_problems("measurements", "mine") == []
    (package / RUNS).write_text("SETTINGS = {}\nmeasure = print\n")
    assert interface_problems("measurements", "mine") == []
    (package / RUNS).write_text("SETTINGS = {}\ndef outer():\n    def measure(run, settings): ...\n")
    assert len(interface_problems("measurements", "mine")) == 1


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("DERIVED_FROM = ()\n", "has no derive(); add derive(table)"),
        ("def derive(table): ...\n", "has no DERIVED_FROM; add it"),
        ("DERIVED_FROM = 'loss'\ndef derive(table): ...\n", "DERIVED_FROM is 'loss'; list names of quantities"),
        ("DERIVED_FROM = (\n", "never closed"),
    ],
)
def test_derived_quantities_are_looked_at_by_every_config(package: Path, source: str, says: str) -> None:
    """Every summary is searched for them, so that a half-written one would fail in all of them."""
    (package / "tables/derived/mine.py").write_text(source)
    (line,) = problems(valid())
    assert line.startswith("derived.mine: ") and says in line and "mine.py" in line


def test_a_half_written_module_stops_no_config_that_does_not_use_it(package: Path) -> None:
    for file in (
        RUNS,
        "measurements/language_models/mine_too.py",
        "tasks/mine.py",
        "models/mine.py",
        "figures/mine.py",
    ):
        (package / file).write_text("SETTINGS = {}\nREQUIRES = ('nothing',)\nNEEDS = {'nothing': 1}\n")
        validate(valid(), files=False)
        (package / file).write_text("def measure(:\n")
        validate(valid(), files=False)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            "NEEDS = {'test_set': ['x']}",
            "NEEDS: Additional properties are not allowed ('test_set' was unexpected); its",
        ),
        ("NEEDS = {'test_sets': 'x'}", "NEEDS['test_sets']: 'x' is not of type 'array'"),
        ("NEEDS = {'test_sets': []}", "NEEDS['test_sets']: [] "),
        ("NEEDS = ('texts',)", "NEEDS is a list; write NEEDS = {'reads': ['texts']}"),
        ("NEEDS = dict(reads=1)", "NEEDS is computed; write a plain literal"),
        ("NEEDS = {'checkpoints': {'ranks': 1}}", "NEEDS['checkpoints'] names ranks, which is not in SETTINGS"),
        ("NEEDS = {'shares': {'landscapes': ['sequences']}}", "NEEDS['shares'] names landscapes, and there is no such"),
        ("NEEDS = {'shares': {'landscape': ['sequences']}}", "names sequences, which both SETTINGS must have"),
        ("NEEDS = {'shares': {'sharpness': []}}", "NEEDS['shares']: [] should be non-empty"),
        ("NEEDS = {'different_batches': 'size'}", "NEEDS['different_batches'] names size, which is not in SETTINGS"),
        ("NEEDS = {'reads': ['texts']}", "'reads' was unexpected"),
        ("TEST_SETS = ('x',)", "TEST_SETS is not read; write it as NEEDS = {'test_sets': ['x']}"),
        ("OTHER_SEEDS = 'all'", "OTHER_SEEDS is not read; write it as NEEDS = {'other_seeds': 'all'}"),
    ],
)
def test_needs_of_another_form_are_refused(package: Path, source: str, says: str) -> None:
    (package / RUNS).write_text(f"SETTINGS = {{}}\n{MEASURE}{source}\n")
    (line,) = problems(using("measurements"))
    assert line.startswith("experiments.copying.measurements.mine: ") and "runs/mine.py: " in line and says in line


def test_files_may_be_shared_with_a_measurement_that_needs_nothing(package: Path) -> None:
    every = {"every": {"type": "integer", "default": 500, "description": "A number of steps."}}
    (package / RUNS).write_text(
        f"SETTINGS = {every}\n{MEASURE}NEEDS = {{'shares': {{'embedding_spectrum': ['every']}}}}"
    )
    validate(using("measurements"), files=False)
    assert needs("mine") == {"shares": {"embedding_spectrum": ["every"]}} and "shares" not in needs(
        "embedding_spectrum"
    )


@pytest.mark.parametrize("name", ["checkpoints", "training", "training_metrics", "logs"])
def test_no_measurement_is_called_as_what_lies_beside_its_table(package: Path, name: str) -> None:
    # its folder would take the place of the checkpoints
    (package / f"measurements/runs/{name}.py").write_text(f"SETTINGS = {{}}\n{MEASURE}")
    config = using("measurements")
    config["experiments"]["copying"]["measurements"] = {name: {}}
    (line,) = problems(config)
    assert f"runs/{name}.py: the results of a run have {name} already; call the measurement otherwise" in line


REFUSED_NEEDS = {
    "test_sets": (
        ["markers_*"],
        "it reads the test set markers_*, and the task has in_distribution, out_of_distribution",
    ),
    "arrays": (["values"], "it reads the array values of the test set in_distribution, which has first_start, "),
    "errors": (["mistake"], "it reads the error mistake, and the task copying has error, error_published_mask alone"),
    "recorded_errors": ({"held_out": "error"}, "it reads the test set held_out, and the task has in_distribution"),
    "task_settings": ({"length": 65}, "task.length is 64, and it needs 65 or more; leave mine out"),
    "task_functions": (["walk"], "it calls walk() of a task, and the task copying has none; leave mine out"),
    "model_settings": (["experts"], "it reads the setting experts of a model, and the model transformer has none"),
    "model_without": ({"positions": ["rotary"]}, "positions: rotary; change model.positions, or leave mine out"),
    "checkpoints": ({"always": 12}, "11 checkpoints on the uniform grid are too few, it takes 12; lower"),
    "sequences": (["number"], "5001, more than the task's 5000 test_sequences; lower it"),
    "at_most": ({"number": "matrix_entries"}, "5001 is above the 4096 entries of an attention matrix; lower it"),
    "leaves_out_above": ({"number": "head_width"}, "5001 is above the head width, 64 / 2 = 32; lower it"),
    "leaves_out_from": ({"number": "width"}, "5001 is not below the width 64; lower it"),
}


OF_SOURCES = ("other_seeds", "shares", "different_batches", "weights", "trains")
"""What is asked of the seeds, of other measurements, or of checkpoints of another program alone."""


@pytest.mark.parametrize("key", [key for key in OF_RUNS if key not in OF_SOURCES])
def test_a_measurement_of_ones_own_may_need_what_any_may(package: Path, key: str) -> None:
    wanted, says = REFUSED_NEEDS[key]
    number = {"type": "integer", "default": 1, "description": "A number."}
    (package / RUNS).write_text(f"SETTINGS = {{'number': {number}}}\n{MEASURE}NEEDS = {{{key!r}: {wanted!r}}}\n")
    config = using("measurements")
    config["experiments"]["copying"]["measurements"]["mine"] = {"number": 5001}
    with pytest.raises(ConfigError) as caught:
        validate(config)
    (line,) = caught.value.problems
    assert line.startswith("experiments.copying.measurements.mine") and says in line


@pytest.mark.parametrize(
    ("options", "bound", "most", "says"),
    [
        ({"head_width": 6}, "head_width", 6, "7 is above the head width, 6; lower it"),
        ({"head_width": 80}, "head_width", 64, "65 is above the width 64; lower it"),
        ({"heads": 4, "key_value_heads": 2}, "matrix_entries", 2048, "2049 is above the 2048 entries of an attention"),
        ({"head_width": 80}, "matrix_entries", 10240, "10241 is above the 10240 entries of an attention matrix"),
        ({"heads": 4, "key_value_heads": 2}, "key_rank", 32, "33 is above the width of all keys, 32; lower it"),
        ({"head_width": 80}, "key_rank", 64, "65 is above the width 64; lower it"),
    ],
)
def test_bounds_follow_the_width_of_heads_and_keys(
    package: Path, options: Config, bound: str, most: int, says: str
) -> None:
    number = {"type": "integer", "default": 1, "description": "A number."}
    needs = f"NEEDS = {{'at_most': {{'number': {bound!r}}}}}"
    (package / RUNS).write_text(f"SETTINGS = {{'number': {number}}}\n{MEASURE}{needs}\n")
    config = using("measurements")
    config["experiments"]["copying"]["model"] |= options
    config["experiments"]["copying"]["measurements"]["mine"] = {"number": most}
    validate(config)
    config["experiments"]["copying"]["measurements"]["mine"] = {"number": most + 1}
    with pytest.raises(ConfigError) as caught:
        validate(config)
    (line,) = caught.value.problems
    assert line.startswith("experiments.copying.measurements.mine.number: ") and says in line


def test_what_a_model_of_ones_own_does_not_say_bounds_nothing(package: Path) -> None:
    def number(default: int) -> Config:
        return {"type": ["integer", "null"], "default": default, "description": "A number."}

    settings = {"number": number(5001), "medium": number(90), "top": number(1)}
    (package / RUNS).write_text(f"SETTINGS = {settings}\n{MEASURE}NEEDS = {{'at_most': {{'number': 'width'}}}}\n")
    (package / "models/mine.py").write_text("SETTINGS = {}\ndef initialise(): ...\ndef forward(): ...\n")
    config = using("measurements")
    number_line, medium_line = sorted(problems(config, files=True), key=lambda line: "medium" in line)
    assert number_line.endswith("mine.number: 5001 is above the width 64; lower it")
    assert medium_line.endswith(
        "mine.medium: top 1 and medium 90 leave nothing of the width 64 for the bottom subspace; lower it"
    )
    config["experiments"]["copying"]["measurements"]["mine"] = {"number": None, "medium": 9}
    validate(config)
    config["experiments"]["copying"] |= {"model": {"name": "mine"}, "measurements": {"mine": {}}}
    validate(config)


def test_all_modules_of_the_project_hold_what_is_called() -> None:
    for kind in ("tasks", "models", "measurements", "figures"):
        for name in own(kind):
            assert interface_problems(kind, name) == [], name
    assert derived_problems() == {}


def test_the_functions_that_are_called_take_what_the_table_says() -> None:
    for kind, called in CALLED.items():
        names = [path.stem for path in discovery.module_files(kind)] if kind == "derived" else own(kind)
        for name in names:
            tree = ast.parse(discovery.module_file(kind, name).read_text())
            functions = {node.name: node.args for node in tree.body if isinstance(node, ast.FunctionDef)}
            for function, given in called.items():
                said = [each for each in given.split(", ") if each not in ("*", "…")]
                if function in functions:
                    taken = functions[function].args
                    assert len(taken) == len(said), f"{name}.{function}"


def test_every_need_is_described_and_used() -> None:
    used = {key for name in own("measurements") for key in needs(name)}
    assert used == {*OF_RUNS, *OF_LANGUAGE_MODELS}
    assert all(entry["description"] for entry in (OF_RUNS | OF_LANGUAGE_MODELS).values())


def test_the_tables_of_needs_are_in_step_with_the_literals() -> None:
    written = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert written.count(BEGIN) == written.count(END) == 1
    between = written.partition(BEGIN)[2].partition(END)[0].strip("\n") + "\n"
    assert between == needs_tables(own_summaries), "put there what python -m learning_geometry.config needs prints"


def test_the_tables_are_written_between_the_marks(tmp_path: Path) -> None:
    file = tmp_path / "C.md"
    file.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    assert main(["needs", "--into", str(file)]) == 0
    assert file.read_text() == f"above\n{BEGIN}\n\n{needs_tables()}\n{END}\nbelow\n"
    file.write_text("nothing")
    assert main(["needs", "--into", str(file)]) == 1


def test_the_command_prints_the_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["needs"]) == 0
    printed = capsys.readouterr().out
    assert printed == needs_tables()
    for name in own("measurements"):
        assert f"| `{name}` |" in printed or name == "change_of_basis"
    monkeypatch.setattr(sys, "argv", ["config", "needs"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(discovery.PACKAGE / "config/__main__.py"), run_name="__main__")
    assert not ended.value.code and capsys.readouterr().out == printed


def test_files_of_a_users_own_are_none_of_the_projects_tests() -> None:
    """What is parametrised over modules, and expects something planted for each, takes those in git."""
    users = {path.name for path in ROOT.glob("tests/**/*.py") if "available(" in path.read_text(encoding="utf-8")}
    assert users == {"own.py", "test_config.py", Path(__file__).name}
    assert {"copying", "marker_sums", "binary_operations"} <= set(own("tasks"))
