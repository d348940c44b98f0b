"""A process that imports the libraries once and forks the jobs of a run on this machine.

Snakemake starts Python anew for each job, and most jobs then import torch, pandas and pyarrow: 2 to 3 s of processor
time each, a quarter of a default run. The main process starts one server; a script asks it, in its first line, to run
it in a fork, hands over its standard streams, and ends as the fork ended. Scripts that reach no server, on a cluster
or in another environment, import the same libraries and run as they are, so that what a result records of them does not
tell how it was started. The server holds no module of this package that a job uses: jobs check and import their own.

It serves one user, over a socket in a folder that no other user may enter. It ends when the process that started it
has ended, after the last of its forks. Who kills a script kills its fork.
"""

import atexit
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

VARIABLE = "LEARNING_GEOMETRY_FORKSERVER"
"""The environment variable that names the server's socket to the jobs."""

THREADS = (
    "OMP_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""What libraries read when they are imported, and Snakemake sets for a job: one with other values is not forked."""

PATIENCE = 10.0
"""Seconds in which a script must say what it asks for; others wait meanwhile."""

LIBRARIES = (
    "numpy",
    "pandas",
    "pyarrow.parquet",
    "torch",
    "safetensors.torch",
    "scipy.linalg",
    "scipy.sparse.linalg",
    "scipy.stats",
    "jaxtyping",
    "xxhash",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "snakemake.logging",
    "snakemake.iocontainers",
)
"""What several kinds of job import."""


class Server:
    """The server of one run, held by the process that starts its jobs."""

    def __init__(self, libraries: tuple[str, ...] = LIBRARIES):
        """Start it, and name it to the jobs that this process will start; those that come early wait for its imports.

        Args:
            libraries: the modules to import.

        Raises:
            OSError: the socket cannot be made, such as below a long path of temporary files.
        """
        folder = tempfile.mkdtemp(prefix="forkserver-")
        address, environment = os.path.join(folder, "socket"), {**os.environ, **dict.fromkeys(THREADS, "1")}
        with socket.socket(socket.AF_UNIX) as listening:
            try:
                listening.bind(address)
            except OSError:
                os.rmdir(folder)
                raise
            listening.listen(128)
            number = listening.fileno()
            command = [sys.executable, "-m", __name__, address, str(number), *libraries]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, pass_fds=[number])
        os.environ[VARIABLE] = address

    def stop(self) -> None:
        """Let the server end after the last of its forks, and wait for that."""
        os.environ.pop(VARIABLE, None)
        self._process.communicate()


def run_in_a_fork() -> None:
    """Let the server run the script that this process runs, and end as it ended; if none takes it, import and return.

    Raises:
        SystemExit: the script was run, with its status.
        ChildProcessError: the server ended while it ran the script.
    """
    _hand_over()
    _import(LIBRARIES)


def _hand_over() -> None:
    address = os.environ.pop(VARIABLE, None)
    if address is None:
        return
    request = {"argv": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ), "python": _python()}
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
            socket.send_fds(connection, [b"."], [0, 1, 2])
            connection.sendall(json.dumps(request).encode() + b"\n")
            taken = connection.recv(1)
        except OSError:
            return
        if not taken:
            return
        # an interrupt of the keyboard reaches the fork as well, which says what there is to say
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        answer = connection.recv(16)
    if not answer:
        raise ChildProcessError("the process that ran this job ended without a word; run the same command again")
    ended = int(answer)
    if ended < 0:
        with suppress(OSError):  # some signals cannot be handled
            signal.signal(-ended, signal.SIG_DFL)
        os.kill(os.getpid(), -ended)
    sys.exit(ended)


def serve(address: str, listening: socket.socket, libraries: tuple[str, ...]) -> None:
    """Import the libraries, then fork scripts as they are asked for, until standard input ends and no fork is left.

    Args:
        address: of the socket, deleted at the end with its folder.
        listening: the socket.
        libraries: modules to import.
    """
    with listening:
        for name in (signal.SIGINT, signal.SIGCHLD):
            signal.signal(name, lambda number, frame: None)
        _import(libraries)
        gc.collect()
        gc.freeze()  # a collection in a fork need not look at, and so copy, what lies here
        script = _forked(listening)
    if script is not None:
        _run(script)
    Path(address).unlink()
    Path(address).parent.rmdir()


def _forked(listening: socket.socket) -> dict[str, Any] | None:
    """Serve; in a fork return what to run, and nothing at the end."""
    forks: dict[int, socket.socket] = {}
    asked: list[Any] = [listening, sys.stdin]
    ended, wake = socket.socketpair()
    wake.setblocking(False)
    with ended, wake:
        signal.set_wakeup_fd(wake.fileno())
        while forks or sys.stdin in asked:
            for ready in _readable([ended, *asked, *forks.values()]):
                if ready is sys.stdin:  # who started the server ended, or needs it no more
                    asked.clear()
                elif ready is ended:
                    ended.recv(4096)
                    _tell(forks)
                elif ready in asked:
                    script = _request(listening)
                    if script is None:
                        continue
                    fork = os.fork()
                    if fork == 0:
                        for connection in (script["connection"], *forks.values()):
                            connection.close()
                        return script
                    for descriptor in script["descriptors"]:
                        os.close(descriptor)
                    forks[fork] = script["connection"]
                else:  # a script that waits writes nothing: it was killed, and its fork must be
                    for fork in [fork for fork, connection in forks.items() if connection is ready]:
                        os.kill(fork, signal.SIGKILL)
                        _tell(forks, wait_for=fork)
    return None


def _readable(files: list[Any]) -> list[Any]:
    with selectors.PollSelector() as selector:
        for file in files:
            selector.register(file, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select()]


def _request(listening: socket.socket) -> dict[str, Any] | None:
    """Return what a script asks to be run, with its connection and standard streams; nothing if it must run itself."""
    connection, _ = listening.accept()
    connection.settimeout(PATIENCE)
    descriptors: list[int] = []
    try:
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
        with connection.makefile("rb") as lines:
            script: dict[str, Any] = json.loads(lines.readline())
        environment = script["environment"]
        fits = script["python"] == _python() and all(environment.get(name) == os.environ[name] for name in THREADS)
        if fits:
            connection.sendall(b"+")
            return script | {"connection": connection, "descriptors": descriptors}
    except (OSError, ValueError):  # it was killed or stopped meanwhile
        pass
    for descriptor in descriptors:
        os.close(descriptor)
    connection.close()
    return None


def _tell(forks: dict[int, socket.socket], wait_for: int = -1) -> None:
    """Tell the scripts of all forks that have ended how they did."""
    with suppress(ChildProcessError):  # no fork is left
        while True:
            fork, status = os.waitpid(wait_for, os.WNOHANG if wait_for == -1 else 0)
            if fork == 0:
                return
            with forks.pop(fork) as connection, suppress(OSError):
                connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _run(script: dict[str, Any]) -> NoReturn:
    """Run a script in this fork as if Python had been started with it, and end the process.

    It ends without the interpreter's own end, which would touch, and so copy, all that the fork shares: .3 s.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, descriptor in enumerate(script["descriptors"]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(script["folder"])
    os.environ.clear()
    os.environ.update(script["environment"])
    sys.argv = script["argv"]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    status = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if ended.code is not None and not isinstance(ended.code, int):
            print(ended.code, file=sys.stderr)
    except BaseException as error:
        traceback.print_exc()
        status = 130 if isinstance(error, KeyboardInterrupt) else 1
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _import(libraries: tuple[str, ...]) -> None:
    """Import what is there; a job that cannot do without says so itself, and tables are drawn again without torch."""
    for library in libraries:
        with suppress(ImportError):
            import_module(library)


def _python() -> list[str]:
    return [sys.prefix, sys.version]


if __name__ == "__main__":
    serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])), tuple(sys.argv[3:]))
