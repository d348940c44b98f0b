"""A Slurm cluster of two nodes on this machine, for demonstrations and tests, that leaves nothing behind.

Munge, the controller and two node daemons have a folder of their own for key, configuration, spool and logs, and ports
of their own. Packages that are missing are installed with apt and removed at the end.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("slurm-wlm", "slurm-wlm-basic-plugins", "munge")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
DAEMONS = ("munged", "slurmctld", "slurmd", "slurmdbd", "slurmstepd")
CONFIGURED = ("/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf", "/etc/munge/munge.key")
NODES = ("n1", "n2")
CPUS, MEMORY = 2, 6000
"""Of each node; both are this machine, whatever it has, and say that they have a GPU."""
PATIENCE = 30.0

CONFIG = """\
ClusterName=demo
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/controller.pid
SlurmctldLogFile={folder}/controller.log
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/spool.%n
StateSaveLocation={folder}/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmdTimeout=20
SlurmdParameters=config_overrides
MinJobAge=300
KillWait=2
JobRequeue=0
DefMemPerCPU=200
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
GresTypes=gpu
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


class Cluster(NamedTuple):
    """A cluster that is up."""

    folder: Path
    environment: dict[str, str]
    """In which Slurm's commands and Snakemake find it."""

    def run(self, *command: str) -> str:
        """Return what a command of Slurm's prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True)
        return done.stdout

    def jobs(self, folder: Path | None = None) -> list[dict[str, str]]:
        """Return all jobs so far, or those that were sent from a folder, the first one first."""
        columns = ("number", "name", "state", "node", "folder")
        lines = self.run("squeue", "--noheader", "--states=all", "--sort=i", "--format=%i|%j|%T|%N|%Z").splitlines()
        jobs = [dict(zip(columns, line.split("|"), strict=True)) for line in lines]
        return [job for job in jobs if folder is None or job["folder"] == str(folder)]

    def kill_node(self, name: str) -> None:
        """Kill the daemon of a node and what runs there, as a crash would."""
        _end(self.folder / f"{name}.pid", signal.SIGKILL)
        subprocess.run(["pkill", "-KILL", "-f", "slurmstepd: .*"], check=False)

    def start_node(self, name: str) -> None:
        """Start the daemon of a node."""
        _start("slurmd", "-N", name, "-f", str(self.folder / "slurm.conf"), environment=self.environment)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Bring a cluster up, and take it down at the end.

    Raises:
        RuntimeError: Slurm or munge is configured or runs here, a package cannot be installed, or the nodes do not come
            up.
    """
    installed = _prepared()
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    try:
        yield _up(folder)
    finally:
        _down(folder)
        if installed:
            subprocess.run(
                ["apt-get", "purge", "--yes", "--auto-remove", *installed],
                check=False,
                capture_output=True,
                env=_quiet(),
            )


def _prepared() -> list[str]:
    """Install what is missing, and return its packages."""
    listed = subprocess.run(["ps", "-e", "-o", "stat=,comm="], capture_output=True, text=True).stdout.splitlines()
    # one that has ended may still be listed
    running = sorted({each.split()[1] for each in listed if not each.startswith("Z")} & set(DAEMONS))
    found = [*running, *(path for path in CONFIGURED if Path(path).exists())]
    found += ["SLURM_CONF"] * ("SLURM_CONF" in os.environ)
    if found:
        raise RuntimeError(
            f"Slurm or munge is used on this machine ({', '.join(found)}); no cluster comes up beside it"
        )
    if all(shutil.which(program) for program in PROGRAMS):
        return []
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise RuntimeError(f"install {', '.join(PACKAGES)} (as root, Debian's packages), or run this as root")
    print(f"installing {', '.join(PACKAGES)}; they are removed at the end", file=sys.stderr)
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", *command], capture_output=True, text=True, env=_quiet())
        if done.returncode:
            raise RuntimeError(f"apt-get {command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return list(PACKAGES)


def _quiet() -> dict[str, str]:
    return {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}


def _up(folder: Path) -> Cluster:
    for name in ("munge", "state", *(f"spool.{node}" for node in NODES)):
        (folder / name).mkdir(mode=0o755)
    key, configuration = folder / "munge/key", folder / "slurm.conf"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host, ports = socket.gethostname().split(".")[0], _free_ports(1 + len(NODES))
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} RealMemory={MEMORY} Gres=gpu:1"
        for node, port in zip(NODES, ports[1:], strict=True)
    )
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    configuration.write_text(
        CONFIG.format(folder=folder, host=host, user=user, ports=ports, nodes=nodes, names=",".join(NODES))
    )
    # any device will do: a job is given a number alone
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    munge = {"key-file": key, "socket": folder / "munge/socket", "pid-file": folder / "munge/pid"}
    munge |= {"log-file": folder / "munge/log", "seed-file": folder / "munge/seed"}
    _start("munged", "--force", *(f"--{name}={value}" for name, value in munge.items()), environment=environment)
    _start("slurmctld", "-f", str(configuration), environment=environment)
    up = Cluster(folder, environment)
    for node in NODES:
        up.start_node(node)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(subprocess.CalledProcessError):
            if up.run("sinfo", "--noheader", "--format=%T %D").split() == ["idle", str(len(NODES))]:
                return up
        time.sleep(0.2)
    raise RuntimeError(
        f"the nodes do not come up; the controller says {(folder / 'controller.log').read_text()[-2000:]}"
    )


def _down(folder: Path) -> None:
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    with suppress(OSError, subprocess.SubprocessError):
        for state in ("PENDING", "RUNNING"):
            subprocess.run(["scancel", f"--state={state}"], env=environment, capture_output=True, timeout=10)
        end = time.monotonic() + PATIENCE
        command = ["squeue", "--noheader", "--states=RUNNING,COMPLETING"]
        while time.monotonic() < end and subprocess.check_output(command, env=environment, timeout=10):
            time.sleep(0.2)
    for name in (*NODES, "controller", "munge/pid"):
        _end(folder / (name if "/" in name else f"{name}.pid"), signal.SIGTERM)
    shutil.rmtree(folder, ignore_errors=True)


def _end(pid_file: Path, number: signal.Signals) -> None:
    """End the process of a file, and wait until it has ended."""
    try:
        process = int(pid_file.read_text())
        os.kill(process, number)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            os.kill(process, 0)
            time.sleep(0.05)
        os.kill(process, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return


def _start(*command: str, environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
