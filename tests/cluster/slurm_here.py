"""A real Slurm on this machine for as long as a test needs it: munged, slurmctld and one slurmd with two partitions.

    python tests/cluster/slurm_here.py COMMAND ...     run a command while it is up

Everything lives in one folder but /etc/slurm/slurm.conf and gres.conf: Snakemake's executor hands no SLURM_CONF on to
its jobs. No accounting and no cgroups: processes are found by their parents, states come from squeue.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

CONFIGURATION = Path("/etc/slurm")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
MARK = "# written for a test of alkit by process "

SLURM_CONF = """{mark}{pid}; it goes when that ends
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/completed.txt
MailProg=/bin/true
ReturnToService=2
MinJobAge=300
KillWait=5
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE State=UP
PartitionName=high Nodes={host} MaxTime=INFINITE PriorityTier=2 PreemptMode=OFF State=UP
"""
GRES_CONF = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"  # two files that stand for two GPUs


def why_not() -> str | None:
    """Why a Slurm cannot be set up here; None if it can."""
    if missing := [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]:
        return f"{missing[0]} is not installed (Debian: apt-get install slurmctld slurmd slurm-client munge)"
    if os.geteuid() != 0:
        return "only root can write /etc/slurm/slurm.conf and start slurmd"
    found = CONFIGURATION / "slurm.conf"
    if found.exists() and not _stale(found):
        return f"{found} is there: this machine has a Slurm of its own, or another test is using one"
    return None


def _stale(path: Path) -> bool:
    """Whether the file is ours and the process that wrote it has ended."""
    head = path.read_text(errors="replace").partition(";")[0]
    if not head.startswith(MARK):
        return False
    return not Path("/proc", head.removeprefix(MARK)).exists()


class SlurmHere:
    """A context manager; within, Slurm's commands work on this machine."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.daemons: list[subprocess.Popen[bytes]] = []
        self._made_folder = not CONFIGURATION.exists()
        self._kept_gres: str | None = None

    def __enter__(self) -> SlurmHere:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        CONFIGURATION.mkdir(exist_ok=True)
        gres = CONFIGURATION / "gres.conf"
        self._kept_gres = gres.read_text() if gres.exists() else None
        gres.write_text(GRES_CONF)
        ports = _free_ports(2)
        (CONFIGURATION / "slurm.conf").write_text(
            SLURM_CONF.format(
                mark=MARK,
                pid=os.getpid(),
                host=socket.gethostname().partition(".")[0],
                folder=self.folder,
                controller_port=ports[0],
                node_port=ports[1],
            )
        )
        here = self.folder
        self._daemon("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={here}/munge.socket",
                     f"--pid-file={here}/munged.pid", f"--log-file={here}/munged.log",
                     f"--seed-file={here}/munged.seed")  # fmt: skip
        self._until(lambda: (here / "munge.socket").exists(), "munged made no socket")
        self._daemon("slurmctld", "-D", "-c")
        self._until(lambda: "UP" in self.ask("scontrol", "ping"), "slurmctld does not answer")
        self._daemon("slurmd", "-D")
        self._until(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%t"), "slurmd's node does not become idle")

    def _daemon(self, name: str, *arguments: str) -> None:
        program = shutil.which(name, path=PATH)
        assert program is not None
        with (self.folder / f"{name}.out").open("wb") as output:
            self.daemons.append(
                subprocess.Popen([program, *arguments], stdout=output, stderr=output, stdin=subprocess.DEVNULL)
            )

    def _until(self, true: object, otherwise: str, patience: float = 30.0) -> None:
        assert callable(true)
        until = time.monotonic() + patience
        while not true():
            if time.monotonic() > until or any(daemon.poll() is not None for daemon in self.daemons):
                raise RuntimeError(f"{otherwise}\n{self.logs()}")
            time.sleep(0.2)

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        return done.stdout + done.stderr

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        texts = []
        for path in sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")]):
            lines = path.read_text(errors="replace").splitlines()[-15:]
            texts.append("\n".join([f"--- {path.name}", *lines]))
        return "\n".join(texts)

    def stop(self) -> None:
        """End every job and daemon and put /etc/slurm back as it was."""
        with suppress(OSError, subprocess.SubprocessError):
            self.ask("scancel", "--quiet", "--user=root")
            until = time.monotonic() + 15
            while self.ask("squeue", "-h", "-t", "R,CG").strip() and time.monotonic() < until:
                time.sleep(0.2)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        (CONFIGURATION / "slurm.conf").unlink(missing_ok=True)
        if self._kept_gres is None:
            (CONFIGURATION / "gres.conf").unlink(missing_ok=True)
        else:
            (CONFIGURATION / "gres.conf").write_text(self._kept_gres)
        if self._made_folder:
            with suppress(OSError):
                CONFIGURATION.rmdir()
        shutil.rmtree(self.folder, ignore_errors=True)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def main() -> int:
    if reason := why_not():
        print(f"no Slurm here: {reason}", file=sys.stderr)
        return 2
    with SlurmHere():
        return subprocess.run(sys.argv[1:]).returncode


if __name__ == "__main__":
    sys.exit(main())
