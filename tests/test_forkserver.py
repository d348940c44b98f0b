"""Scripts that a server runs in forks end, print and die as if Python had been started with them."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest.mock import Mock, call

import psutil
import pytest

from learning_geometry import forkserver
from learning_geometry.forkserver import LIBRARIES, THREADS, VARIABLE, Server

SOURCE = Path(__file__).parents[1] / "src"
BEGIN = "from learning_geometry.forkserver import run_in_a_fork\nrun_in_a_fork()\nimport os, sys, signal, time\n"


@pytest.fixture(scope="module")
def server():
    threads = {name: os.environ.get(name) for name in THREADS}
    os.environ["PYTHONPATH"] = str(SOURCE)
    server = Server(("wave", *LIBRARIES))
    yield server
    server.stop()
    assert {name: os.environ.get(name) for name in THREADS} == threads


@pytest.fixture
def start(server, tmp_path):
    def start(body, **environment):
        script = tmp_path / "script.py"
        script.write_text(BEGIN + body)
        return subprocess.Popen(
            [sys.executable, script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **dict.fromkeys(THREADS, "1"), **environment},
        )

    return start


def ended(process):
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def test_a_script_runs_in_a_fork_that_has_the_libraries(start, tmp_path):
    process = start("print('wave' in sys.modules, os.getpid(), os.getcwd(), sys.argv[0], sys.path[0], __name__)")
    status, output, errors = ended(process)
    loaded, number, *rest = output.split()
    assert (status, errors, loaded) == (0, "", "True")
    assert int(number) != process.pid
    assert rest == [str(tmp_path), str(tmp_path / "script.py"), str(tmp_path), "__main__"]


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("sys.exit(3)", 3, ""),
        ("sys.exit('no such run')", 1, "no such run\n"),
        ("sys.exit()", 0, ""),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("import atexit\natexit.register(print, 'at the end', file=sys.stderr)", 0, "at the end\n"),
    ],
)
def test_it_ends_as_the_script_ended(start, body, status, error):
    returned, _, errors = ended(start(body))
    assert returned == status
    assert error in errors if error else errors == ""


def test_the_environment_is_that_of_the_script(start):
    status, output, _ = ended(start("print(os.environ['ONE'], os.environ.get('" + VARIABLE + "'))", ONE="two"))
    assert (status, output.split()) == (0, ["two", "None"])


@pytest.mark.parametrize("environment", [{"OMP_NUM_THREADS": "2"}, {VARIABLE: "/nowhere"}])
def test_a_script_that_does_not_fit_or_finds_no_server_runs_itself(start, environment):
    process = start("print(os.getpid(), 'wave' in sys.modules)", **environment)
    assert ended(process)[:2] == (0, f"{process.pid} False\n")


def test_a_result_does_not_tell_how_its_job_was_started(start):
    body = "from learning_geometry.running import made_with\nprint(sorted(made_with().items()))"
    forked, alone = ended(start(body)), ended(start(body, **{VARIABLE: "/nowhere"}))
    assert forked[0] == alone[0] == 0
    assert "'torch', " in forked[1] and forked[1] == alone[1]


def test_who_kills_a_script_kills_its_fork(start):
    process = start("print(os.getpid(), flush=True)\ntime.sleep(60)")
    fork = psutil.Process(int(process.stdout.readline()))
    process.kill()
    assert psutil.wait_procs([fork], timeout=20)[1] == []
    process.communicate()


@pytest.mark.parametrize("caught", ["", "\nexcept KeyboardInterrupt:\n    print('stopped')\n    sys.exit(130)"])
def test_an_interrupt_of_the_keyboard_reaches_the_fork(start, caught):
    process = start(
        f"try:\n    print(os.getpid(), flush=True)\n    time.sleep(60){caught or chr(10) + 'finally: pass'}"
    )
    fork = int(process.stdout.readline())
    process.send_signal(signal.SIGINT)  # as the terminal does, to all
    os.kill(fork, signal.SIGINT)
    status, output, _ = ended(process)
    assert (status, output) == (130, "stopped\n" if caught else "")


def test_many_at_once_each_get_their_own(server, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(BEGIN + "time.sleep(.1)\nsys.exit(int(os.environ['NUMBER']))")
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    processes = [
        subprocess.Popen([sys.executable, script], env={**environment, "NUMBER": str(number)}) for number in range(12)
    ]
    assert [process.wait(timeout=60) for process in processes] == list(range(12))


def test_the_server_ends_with_who_started_it_and_leaves_nothing(tmp_path):
    code = (
        "import os, signal\nfrom learning_geometry.forkserver import Server, VARIABLE\nserver = Server(())\n"
        "print(server._process.pid, os.environ[VARIABLE], flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SOURCE)}, stdout=subprocess.PIPE, text=True
    )
    number, address = done.stdout.split()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(int(number)) and psutil.Process(int(number)).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not Path(address).parent.exists()


@pytest.fixture
def asked(monkeypatch):
    """Let a thread be the server of this process: it takes what is asked for, or not, and answers."""
    folder = tempfile.TemporaryDirectory(prefix="forkserver-")  # names of sockets are short
    address = f"{folder.name}/socket"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    listening.settimeout(60)  # of a test that asks for nothing
    threads = []
    monkeypatch.setattr(signal, "signal", Mock())
    monkeypatch.setattr(os, "kill", Mock(side_effect=InterruptedError))

    def start(*answers):
        def serve():
            connection, _ = listening.accept()
            with connection:
                _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
                with connection.makefile("rb") as lines:
                    json.loads(lines.readline())
                for descriptor in descriptors:
                    os.close(descriptor)
                for answer in answers:
                    connection.sendall(answer)

        monkeypatch.setenv(VARIABLE, address)
        threads.append(threading.Thread(target=serve))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join()
    listening.close()
    folder.cleanup()


def test_a_script_ends_as_it_is_told(asked):
    asked(b"+", b"3")
    with pytest.raises(SystemExit, match="3"):
        forkserver._hand_over()
    asked(b"+")
    with pytest.raises(ChildProcessError, match="the process that ran this job ended without a word; run the same"):
        forkserver._hand_over()
    signal.signal.reset_mock()
    asked(b"+", b"-15")
    with pytest.raises(InterruptedError):
        forkserver._hand_over()
    # it kills itself, and handles that no more
    assert signal.signal.call_args_list[1:] == [call(signal.SIGTERM, signal.SIG_DFL)]
    os.kill.assert_called_once_with(os.getpid(), signal.SIGTERM)
    asked()
    forkserver._hand_over()  # it was not taken, and runs itself
    assert VARIABLE not in os.environ


@pytest.mark.parametrize("request_", [b"", b"{", b'{"python": [], "environment": {}}\n'])
def test_what_asks_for_nothing_or_from_elsewhere_is_left_alone(request_):
    with tempfile.TemporaryDirectory(prefix="forkserver-") as folder, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{folder}/socket")
        listening.listen()
        with socket.socket(socket.AF_UNIX) as connection, open(os.devnull) as stream:
            connection.connect(f"{folder}/socket")
            socket.send_fds(connection, [b"."], [stream.fileno()] * 3)
            connection.sendall(request_)
            connection.shutdown(socket.SHUT_WR)
            before = len(os.listdir("/proc/self/fd"))
            assert forkserver._request(listening) is None
            # its streams and its connection are closed here
            assert connection.recv(1) == b"" and len(os.listdir("/proc/self/fd")) == before


def test_a_folder_whose_name_is_too_long_for_a_socket_is_left_as_it_was(tmp_path, monkeypatch):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(OSError, match="too long"):
        Server(())
    assert list(folder.iterdir()) == [] and VARIABLE not in os.environ
