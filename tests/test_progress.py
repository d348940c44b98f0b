import os
import subprocess
import sys
import textwrap

import pytest

from learning_geometry.progress import Progress, log_to


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def progress_and_lines(clock, total=3500, **options):
    lines = []
    return Progress(total, "copying seed 3", show=lines.append, clock=clock, **options), lines


def test_a_line_says_where_how_fast_and_how_long(clock):
    progress, lines = progress_and_lines(clock)
    progress(0)
    clock.now += 30
    progress(1200, "out-of-distribution loss 4.16")
    assert lines == ["copying seed 3: step 1200/3500 (34 %), 40.0 steps/s, 58 s left, out-of-distribution loss 4.16"]


def test_lines_are_at_least_an_interval_apart(clock):
    progress, lines = progress_and_lines(clock, total=100)
    for step in range(101):
        progress(step)
        clock.now += 1
    # clock 5, 10, ..., 100
    assert [line.split()[4] for line in lines] == [f"{step}/100" for step in range(5, 101, 5)]


def test_a_resumed_job_is_credited_with_its_own_steps(clock):
    progress, lines = progress_and_lines(clock)
    clock.now += 2  # loading the saved state
    progress(3000)
    clock.now += 10
    progress(3100)
    assert lines == ["copying seed 3: step 3100/3500 (88 %), 10.0 steps/s, 40 s left"]
    clock.now += 40
    progress(3500)
    assert progress.summary() == "copying seed 3: 500 steps in 52 s, 10.0 steps/s, resumed at step 3000"


def test_the_summary_of_a_whole_job(clock):
    progress, _ = progress_and_lines(clock, unit="checkpoint")
    progress(0)
    clock.now += 700
    progress(3500)
    assert progress.summary() == "copying seed 3: 3500 checkpoints in 11 min 40 s, 5.0 checkpoints/s"


def test_nothing_done_is_no_division_by_zero(clock):
    progress, lines = progress_and_lines(clock, total=0, interval=0.0)
    assert progress.summary() == "copying seed 3: 0 steps in 0 s"
    progress(0)
    assert lines == ["copying seed 3: step 0/0 (0 %)"]


@pytest.mark.parametrize(("seconds", "speed"), [(1, "600 steps/s"), (40, "15.0 steps/s"), (1000, "0.600 steps/s")])
def test_speeds_keep_three_figures(clock, seconds, speed):
    progress, _ = progress_and_lines(clock, total=600)
    progress(0)
    clock.now += seconds
    progress(600)
    assert progress.summary().endswith(speed)


def test_lines_go_to_standard_error_by_default(clock, capsys):
    Progress(10, "job", interval=0.0, clock=clock)(5)
    assert capsys.readouterr().err == "job: step 5/10 (50 %)\n"


def script(tmp_path, body):
    """Run a script whose log is tmp_path/logs/train.log; return the process and the log."""
    log = tmp_path / "logs" / "train.log"
    source = "\n".join(
        [
            "import ctypes, logging, os, subprocess, sys, warnings",
            "from learning_geometry.progress import log_to",
            f"with log_to({str(log)!r}) as log:",
            textwrap.indent(textwrap.dedent(body), "    "),
            "print('after')",
        ]
    )
    process = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        # buffered, as it is by default: what C holds back must reach the log all the same
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": ""},
    )
    return process, log.read_text()


def test_all_output_goes_to_the_log_and_one_line_to_the_terminal(tmp_path):
    process, log = script(
        tmp_path,
        """
        print("from print")
        print("from stderr", file=sys.stderr)
        os.write(1, b"from descriptor 1\\n")
        os.write(2, b"from descriptor 2\\n")
        warnings.warn("from warnings")
        logging.warning("from logging")
        subprocess.run(["echo", "from a child"])
        ctypes.CDLL(None).printf(b"from C\\n")
        log.terminal("3500 steps in 99 s Δ")
        print(log.path.name)
        """,
    )
    assert process.returncode == 0
    assert process.stderr == "3500 steps in 99 s Δ\n"
    assert process.stdout == "after\n"
    expected = ["print", "stderr", "descriptor 1", "descriptor 2", "warnings", "logging", "a child", "C"]
    assert all(f"from {source}" in log for source in expected)
    python = [line for line in log.splitlines() if line != "from C"]  # C writes its buffer when it is full
    assert python[:4] == ["from print", "from stderr", "from descriptor 1", "from descriptor 2"]
    assert "train.log" in python


def test_lines_are_in_the_log_while_the_job_runs(tmp_path):
    _, log = script(tmp_path, "print('early'); print('seen:', log.path.read_text())")
    assert log.splitlines()[:2] == ["early", "seen: early"]


def test_a_failure_is_told_in_a_line_and_traced_in_the_log(tmp_path):
    process, log = script(
        tmp_path,
        """
        def train():
            raise ValueError("learning_rate: nan; lower it\\nsecond line")
        print("before")
        train()
        """,
    )
    assert process.returncode == 1
    path = tmp_path / "logs" / "train.log"
    assert process.stderr == f"rule train failed: ValueError: learning_rate: nan; lower it; see {path}\n"
    assert process.stdout == ""
    assert log.startswith("before\nTraceback (most recent call last):\n")
    assert "in train" in log
    assert log.endswith("ValueError: learning_rate: nan; lower it\nsecond line\n")


def test_an_exit_status_passes_through(tmp_path):
    process, log = script(tmp_path, "print('leaving'); sys.exit(3)")
    assert process.returncode == 3
    assert (process.stdout, process.stderr, log) == ("", "", "leaving\n")


def test_a_stopped_job_says_how_to_continue(tmp_path, capfd):
    with pytest.raises(SystemExit) as stopped, log_to(tmp_path / "train.log"):
        raise KeyboardInterrupt
    assert stopped.value.code == 130
    assert capfd.readouterr().err == "rule train stopped; run the same command again to continue\n"
