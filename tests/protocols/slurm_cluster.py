"""A real Slurm of several nodes on this machine, for tests: its own munge, its own ports, all below one folder.

GPUs are simulated: Slurm grants any character device.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from typing import Callable, Dict, Iterator, List

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")
START_S = 30.0

CONF = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
MailProg=/bin/true
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmctldPort={port}
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=5,batch_sched_delay=0
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """The reason why Slurm can't be used here; empty if it can."""
    absent = [program for program in PROGRAMS if not _program(program)]
    if absent:
        return f"{', '.join(absent)} not found (apt install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "Slurm's daemons start jobs as their users only if they are root's"


def _program(name: str) -> str:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin") or ""


class Cluster:
    """Nodes n1, n2, ... of the cluster whose configuration is below `folder`."""

    def __init__(self, folder: str, nodes: int, cpus: int, gpus: int) -> None:
        self.folder, self.nodes = folder, [f"n{i + 1}" for i in range(nodes)]
        host = socket.gethostname().split(".")[0]
        ports = _free_ports(nodes + 1)
        gres = f"Gres=gpu:{gpus} " if gpus else ""
        lines = [
            f"NodeName={name} NodeHostName={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} {gres}State=UNKNOWN"
            for name, port in zip(self.nodes, ports[1:])
        ]
        os.makedirs(f"{folder}/state")
        self._write("slurm.conf", CONF.format(host=host, folder=folder, port=ports[0], nodes="\n".join(lines)))
        devices = [f"NodeName={name} Name=gpu File={DEVICES[i]}\n" for name in self.nodes for i in range(gpus)]
        self._write("gres.conf", "".join(devices))
        self._write("munge.key", secrets.token_hex(64))
        os.chmod(f"{folder}/munge.key", 0o600)
        self.environment = {"SLURM_CONF": f"{folder}/slurm.conf"}

    def start(self) -> None:
        munge = {name: f"{self.folder}/munge.{name}" for name in ("socket", "pid", "log", "seed")}
        options = [f"--{name}{'' if name == 'socket' else '-file'}={path}" for name, path in munge.items()]
        self.call("munged", "--force", f"--key-file={self.folder}/munge.key", *options)
        self.start_controller()
        for name in self.nodes:
            self.start_node(name)
        self.wait_until(self.all_idle)

    def all_idle(self) -> bool:
        return self.call("sinfo", "-h", "-N", "-o", "%t").split() == ["idle"] * len(self.nodes)

    def start_controller(self) -> None:
        self.call("slurmctld", "-f", f"{self.folder}/slurm.conf")

    def stop_controller(self) -> None:
        self._end(f"{self.folder}/slurmctld.pid", signal.SIGTERM)

    def start_node(self, name: str) -> None:
        os.makedirs(f"{self.folder}/spool.{name}", exist_ok=True)
        self.call("slurmd", "-N", name, "-f", f"{self.folder}/slurm.conf")

    def kill_node(self, name: str) -> None:
        """Kill the node's daemon and jobs at once, as a power failure would."""
        self._end(f"{self.folder}/slurmd.{name}.pid", signal.SIGKILL)
        for job in self.jobs(node=name):
            kill_tree(f"slurmstepd: [{job}.")

    def jobs(self, *options: str, node: str = "") -> List[str]:
        """Numbers of the jobs that are waiting or running, or run on a node."""
        return self.call("squeue", "-h", "-o", "%i", *options, *(["-w", node] if node else [])).split()

    def stop(self) -> None:
        if os.path.exists(f"{self.folder}/slurmctld.pid"):
            self.call("scancel", *self.jobs(), check=False)
        for name in ["slurmctld", *(f"slurmd.{node}" for node in self.nodes), "munge"]:
            self._end(f"{self.folder}/{name}.pid", signal.SIGTERM)

    def call(self, program: str, *arguments: str, check: bool = True) -> str:
        command = [_program(program), *arguments]
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def wait_until(self, condition: Callable[[], bool], limit_s: float = START_S) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                states = self.call("sinfo", "-N", check=False) + self.call("squeue", check=False)
                raise TimeoutError(f"Slurm, after {limit_s:.0f} s:\n{states}")
            time.sleep(0.2)

    def _write(self, name: str, text: str) -> None:
        with open(os.path.join(self.folder, name), "w") as file:
            file.write(text)

    @staticmethod
    def _end(pid_file: str, number: int) -> None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            with open(pid_file) as file:
                os.kill(int(file.read()), number)


def _free_ports(n: int) -> List[int]:
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def kill_tree(command: str) -> int:
    """kill -9 the processes whose command line contains `command`, and their children.

    Returns
    -------
    Number of processes.
    """
    import psutil

    killed: Dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and command in " ".join(process.info["cmdline"] or []):
            with contextlib.suppress(psutil.NoSuchProcess):
                killed.update({p.pid: p for p in [process, *process.children(recursive=True)]})
    for process in killed.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return len(killed)


@contextlib.contextmanager
def cluster(folder: str, nodes: int, cpus: int = 1, gpus: int = 0) -> Iterator[Cluster]:
    """A running cluster. The environment points Slurm's commands to it."""
    it = Cluster(folder, nodes, cpus, gpus)
    before = {name: os.environ.get(name) for name in it.environment}
    os.environ.update(it.environment)
    try:
        it.start()
        yield it
    finally:
        it.stop()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
