"""What a text that is learned has to do with the keys of what is made from it."""

import pytest

from learning_geometry.config import validate
from learning_geometry.planning.plan import Plan
from tests.own import PACKAGE

TRAINING = {"steps": 10, "evaluate_every": 10, "evaluation_sequences": 5, "checkpoints": {"every": 10}}
SCRIPTS = PACKAGE.parents[1] / "workflow/scripts"


def keys(folder, file):
    """The key of the dataset of a run that learns a text, and the files that it reads by their role."""
    task = {"name": "text", "file": str(file), "length": 16, "repeated_length": 6, "test_sequences": 5}
    experiment = {"seeds": [0], "task": task, "model": {"width": 8}, "training": TRAINING}
    config = validate({"results": str(folder / "results"), "experiments": {"tiny": experiment}})
    plan = Plan(config, SCRIPTS)
    (job,) = [job for job in plan.jobs if job.rule == "make_dataset"]
    return plan.key(job), plan.outside(job)


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "one").mkdir()
    for number in range(4):
        (tmp_path / f"one/{number}.txt").write_text(f"text {number} " * 40)
    return tmp_path


def test_where_a_text_lies_changes_nothing_and_what_it_says_does(texts):
    first, read = keys(texts, texts / "one/*.txt")
    assert sorted(read) == [f"task/file/{number}" for number in range(4)]
    (texts / "one").rename(texts / "two")
    assert keys(texts, texts / "two/*.txt")[0] == first
    (texts / "two/3.txt").write_text("another text " * 40)
    assert keys(texts, texts / "two/*.txt")[0] != first
    (texts / "two/3.txt").unlink()
    assert len(keys(texts, texts / "two/*.txt")[1]) == 3


def test_a_corpus_is_not_its_files(texts):
    """The documentation is what a module assigns, and not the module's source."""
    from learning_geometry.tasks.texts import text_files

    (topics,) = text_files("python_documentation")
    corpus, source = keys(texts, "python_documentation"), keys(texts, topics)
    assert corpus[1] == source[1] and corpus[0] != source[0]
