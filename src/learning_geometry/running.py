"""What surrounds the work of every job: its log, a check of itself, and the record of what made its results.

A job is planned when Snakemake starts and may run hours later. So it compares the code, the files from outside and the
artifacts that it reads with the plan before it begins, and again before it writes: what was edited in between and put
back betrays itself by its time of change.
"""

import math
import platform
import re
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import rmtree
from typing import Any

from learning_geometry.fingerprint import code_files, code_fingerprint
from learning_geometry.known import Known, Signature, file_digest, signature
from learning_geometry.paths import KNOWN, MANIFEST, record_path, recorded
from learning_geometry.progress import Log, log_to

LIBRARIES = {
    "numpy": "numpy",
    "scipy": "scipy",
    "torch": "torch",
    "transformers": "transformers",
    "tokenizers": "tokenizers",
    "gguf": "gguf",
    "scikit-dimension": "skdim",
    "scikit-learn": "sklearn",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "safetensors": "safetensors",
}
"""Libraries that can decide numbers -> their modules; recorded are those that a job has imported."""


PEAK_MEMORY = re.compile(r"^peak memory: ([0-9]+) MB$", re.MULTILINE)
"""The line before it: the most that the process held, libraries among it."""

PROCESSOR_TIME = re.compile(r"^processor time: ([0-9.]+) s to start, ([0-9.]+) s of work$", re.MULTILINE)
"""The line at the end of a job's log, the last that it has of the kind: seconds of all its threads."""


class Changed(RuntimeError):
    """What a job depends on changed while it ran, or since it was planned; nothing of it is kept."""


class Running:
    """A running job: its log, and what it stores in its results."""

    def __init__(self, derivation: Mapping[str, Any], log: Log, started: int):
        """Compare what is on disk with the plan.

        Args:
            derivation: as ``planning.plan.Plan.derivation`` returns it.
            log: of the job.
            started: when the process started, by the clock of the file system (ns); files changed later are refused.

        Raises:
            Changed: code, a file from outside, or an input is not what the plan says.
        """
        self.terminal, self._derivation = log.terminal, derivation
        self._ready = 0.0
        self.key: str = derivation["key"]
        self.code: str = derivation["made_from"]["code"]
        roots, known = derivation["roots"], Known(Path(derivation["results"]) / KNOWN)
        files = code_files(*roots, known=known)
        outside = {role: Path(path) for role, path in derivation["outside"].items()}
        self._watched: dict[Path, Signature] = {path: signature(path) for path in (*files.values(), *outside.values())}
        late = [path for path in files.values() if self._watched[path][2] > started]
        if code_fingerprint(*roots, known=known) != self.code or late:
            newest = max(files.values(), key=lambda path: self._watched[path][2])
            raise Changed(_code_changed(late[0] if late else newest))
        for role, path in outside.items():
            if known.digest(path) != derivation["made_from"]["outside"][role]:
                raise Changed(f"{path} changed after this run was planned; run the same command again")
        for path, key in derivation["inputs"].items():
            stored_key = stored(path).get("key")
            if stored_key != key:
                raise Changed(f"{path} was made by other settings or other code than now; run the same command again")

    def ready(self) -> None:
        """Say that the job has only started so far: it imported, and compared what is on disk with the plan."""
        self._ready = time.process_time()

    def processor_time(self) -> str:
        """Return the line of the log that tells the job's processor time, as :data:`PROCESSOR_TIME` reads it."""
        return f"processor time: {self._ready:.2f} s to start, {time.process_time() - self._ready:.2f} s of work"

    def unchanged(self) -> None:
        """Check that code and files from outside are as when the job began; call it before anything is kept.

        Raises:
            Changed: one is not, or was edited and put back.
        """
        for path, before in self._watched.items():
            try:
                now = signature(path)
            except OSError:
                now = (0, 0, 0, 0)
            if now != before:
                if path.suffix == ".py":
                    raise Changed(_code_changed(path))
                raise Changed(f"{path} changed while this job ran; run the same command again")

    def of(self) -> dict[str, Any]:
        """Return what the job's outputs are made from: the key, and the digests that it is made of."""
        return {"key": self.key, "code": self.code, "made_from": self._derivation["made_from"]}

    def provenance(self, **more: Any) -> dict[str, Any]:
        """Return what to store in a result: ``more``, what it is made from, and the libraries and processor.

        Raises:
            Changed: as :meth:`unchanged`.
        """
        self.unchanged()
        return more | self.of() | {"made_with": made_with()}


@contextmanager
def job(snakemake: Any) -> Iterator[Running]:
    """Run the body as the job that Snakemake describes: into its log, checked before and after.

    Files that hold no provenance get a record beside them at the end. After a change of what the job depends on,
    its working folder is deleted, and it exits with status 1, for which Snakemake deletes its outputs.

    Args:
        snakemake: the object of that name in a script; its parameters hold ``derivation``.

    Raises:
        SystemExit: an exception was raised inside.
    """
    derivation = snakemake.params.derivation
    with log_to(snakemake.log[0]) as log:
        try:
            running = Running(derivation, log, _started())
            running.ready()
            yield running
            running.unchanged()
        except Changed:
            if derivation["works_in"]:
                rmtree(derivation["works_in"], ignore_errors=True)
            raise
        _write_record(derivation, running)
        print(f"peak memory: {_peak_memory()} MB")
        print(running.processor_time())


def stored(path: str | Path) -> dict[str, Any]:
    """Return what is stored in an artifact of what made it; empty for files that hold nothing.

    Raises:
        OSError, ValueError: it is not there, or not readable.
    """
    from learning_geometry.files import read_json, read_provenance, read_tensor_metadata

    path = Path(path)
    if path.is_dir():
        return dict(read_json(path / MANIFEST).get("provenance", {}))
    if path.suffix == ".parquet":
        return read_provenance(path)
    return read_tensor_metadata(path) if path.suffix == ".safetensors" else {}


def made_with() -> dict[str, str]:
    """Return the versions of Python and of the libraries imported so far that can decide numbers, and the processor.

    ``processor`` is its name; ``openblas`` and ``torch_cpu`` say whose kernels compute on it, of those that are loaded;
    ``gpu`` is the name of the one that was used, if one was.
    """
    environment = {"python": platform.python_version(), "processor": _processor()}
    for name, module in LIBRARIES.items():
        if sys.modules.get(module) is not None:
            try:
                environment[name] = version(name)
            except PackageNotFoundError:
                continue
    torch = sys.modules.get("torch")
    if torch is not None:
        environment["torch_cpu"] = str(torch.backends.cpu.get_cpu_capability())
        if torch.cuda.is_initialized():
            environment["gpu"] = torch.cuda.get_device_name()
    if "numpy" in sys.modules:
        from threadpoolctl import threadpool_info

        kernels = {each["architecture"] for each in threadpool_info() if each.get("internal_api") == "openblas"}
        if kernels:
            environment["openblas"] = ", ".join(sorted(map(str, kernels)))
    return environment


def mixed(provenances: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return in what tables differ that were not all made with the same libraries on the same kind of processor.

    >>> mixed([{"made_with": {"numpy": "2.4.6"}}, {"made_with": {"numpy": "2.5.0", "torch": "2.13.0"}}])
    {'numpy': ['2.4.6', '2.5.0']}
    """
    by_name: dict[str, set[str]] = {}
    for provenance in provenances:
        for name, value in provenance.get("made_with", {}).items():
            by_name.setdefault(name, set()).add(value)
    return {name: sorted(values) for name, values in sorted(by_name.items()) if len(values) > 1}


def _peak_memory() -> int:
    """The most memory that this process held so far (MB)."""
    unit = 1 if sys.platform == "darwin" else 1024  # in which the system counts
    return math.ceil(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _write_record(derivation: Mapping[str, Any], running: Running) -> None:
    from learning_geometry.files import write_json

    files = [Path(path) for path in recorded(derivation["outputs"])]
    if files:
        record = {"digests": {path.name: file_digest(path) for path in files}, **running.of(), "made_with": made_with()}
        write_json(record_path(derivation["results"], derivation["outputs"]), record)


def _started() -> int:
    """Return when this process was started, by the file system's clock (ns): Snakemake wrote its script just before."""
    script = Path(sys.argv[0])
    # anything else that was started, such as a test or a notebook, begins now
    return script.stat().st_ctime_ns if script.parent.parts[-2:] == (".snakemake", "scripts") else sys.maxsize


def _code_changed(path: Path) -> str:
    return f"the code changed while this job ran ({path}); run the same command again"
