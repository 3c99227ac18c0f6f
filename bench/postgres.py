"""A real PostgreSQL server on a free port, which may be stopped, frozen and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from bench.ports import free_port

UNPRIVILEGED = "nobody"  # initdb and postgres refuse to run as root
# What survives a crash of the machine is PostgreSQL's own affair; here only processes die.
OPTIONS = [
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_connections=50",
    "log_min_messages=fatal",
]


class PostgresServer:
    """A server of its own, with one empty folder; gone when closed.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """

    def __init__(self) -> None:
        self._bin = _binaries()
        self._folder = Path(tempfile.mkdtemp(prefix="millrace-postgres-"))  # pytest's folders shut others out
        self._as: list[str] = []
        if os.getuid() == 0:
            user = pwd.getpwnam(UNPRIVILEGED)
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            # Not by subprocess's own `user`: that forks, in place of vfork, and what libraries run in the child of this
            # process of many threads has crashed there once in some thousand times.
            self._as = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]
        self._run("initdb", "--no-sync", "--auth=trust", "--username=millrace", "--encoding=UTF8", "--locale=C")
        self.port = free_port()
        self._database_count = 0
        self.start()

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        options = " ".join(f"-c {option}" for option in OPTIONS)
        where = f"-h 127.0.0.1 -p {self.port} -k {self._folder}"
        self._run(
            "pg_ctl", "start", "--wait", "--silent", "--log", str(self._folder / "log"), "-o", f"{where} {options}"
        )

    def stop(self) -> None:
        """Stops the server at once and cuts every connection."""
        self.thaw()
        self._run("pg_ctl", "stop", "--mode=fast", "--silent")

    def freeze(self) -> None:
        """Stops every process where it stands: connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets every process go on."""
        self._signal(signal.SIGCONT)

    def create_database(self) -> str:
        """Makes an empty database and returns its URL."""
        self._database_count += 1
        name = f"test_{self._database_count}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "millrace", name, folder=False)
        return f"postgresql+asyncpg://millrace@127.0.0.1:{self.port}/{name}"

    def close(self) -> None:
        """Ends the server and forgets all."""
        if self._postmaster():
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        postmaster = self._postmaster()
        if postmaster:
            children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
            for process in (postmaster, *map(int, children)):
                os.kill(process, number)

    def _postmaster(self) -> int | None:
        try:
            return int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        except FileNotFoundError:
            return None

    def _run(self, command: str, *arguments: str, folder: bool = True) -> None:
        data = ["-D", str(self._folder / "data")] if folder else []
        subprocess.run(
            [*self._as, str(self._bin / command), *data, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
            timeout=60,
        )


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        raise FileNotFoundError("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return (found[-1] if found else Path(str(on_path))).parent
