"""Where do the database and the queue come from when nobody has set any up?

From two wheels (the `embedded` extra) that carry the programs of PostgreSQL and Valkey. `servers(folder)` runs both for
as long as anybody uses them, and the last user to leave stops them. They listen on Unix sockets in a private folder and
nowhere else: there is no port to collide with, and no other account can connect.

Whether a server lives, and whether anybody uses it, is asked of locks, which the kernel drops however a process ends:

- `door.lock` is held alone while somebody starts or stops.
- `users.lock` is shared by all users. Whoever can have it alone was the last one.
- `postgres.lock` and `valkey.lock` are inherited by the server and its children. Free means that none of them is left.

Where the data lives and as which account the servers run: `worker/embedded_site.py`.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from worker.embedded_site import ServerFailed, Site, find_programs, make_site, runnable, usable

START_SECONDS = 60.0  # recovery after a crash takes its time
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Servers:
    """Where the running servers listen."""

    database_url: str
    broker_url: str


@dataclass(frozen=True)
class _Server:
    name: str
    command: Sequence[str | Path]
    pid_file: Path
    leftovers: Sequence[Path]  # what a killed server leaves behind and a new one could trip over
    answers: Callable[[], bool]


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """Have both servers running on the data in this folder; the last user to leave stops them."""
    programs = find_programs()
    folder = usable(folder)
    running: list[_Server] = []
    with _opened(folder / "users.lock") as users:
        try:
            with _alone(folder):
                fcntl.flock(users, fcntl.LOCK_SH)
                site = make_site(folder)
                programs = runnable(programs, site.account)
                for server in (_postgres(site, programs.postgres), _valkey(site, programs.valkey)):
                    running.append(server)
                    _start(site, server)
                _create_database(site.sockets)
            yield _urls(site.sockets)
        finally:
            with _alone(folder), suppress(BlockingIOError):  # blocked: somebody else still uses them
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for server in running:
                    _stop(site, server)
                    with suppress(OSError):  # not empty: the other server is still there
                        site.sockets.rmdir()


# The two servers


def _postgres(site: Site, program: Path) -> _Server:
    data = site.home / "postgres"
    if not data.exists():
        _init_database(site, program.with_name("initdb"), data)
    command: list[str | Path] = [program, "-D", data, "-p", "5432"]  # the number is part of the socket's name only
    for setting in ("listen_addresses=", f"unix_socket_directories={site.sockets}", "unix_socket_permissions=0700"):
        command += ["-c", setting]
    command += ["-c", "timezone=UTC", "-c", "log_timezone=UTC"]
    pid_file, address = data / "postmaster.pid", site.sockets / ".s.PGSQL.5432"
    leftovers = (pid_file, address, address.with_name(f"{address.name}.lock"))
    return _Server("postgres", command, pid_file, leftovers, lambda: _postgres_answers(site.sockets))


def _valkey(site: Site, program: Path) -> _Server:
    pid_file, address = site.home / "valkey.pid", site.sockets / "valkey.sock"
    command: list[str | Path] = [program, "--port", "0", "--unixsocket", address, "--unixsocketperm", "700"]
    # Nothing is saved: the queue carries hints, the rows in the database are the schedule.
    command += ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]
    command += ["--daemonize", "no", "--pidfile", pid_file, "--dir", site.home]
    return _Server("valkey", command, pid_file, (pid_file, address), lambda: _valkey_answers(address))


def _init_database(site: Site, initdb: Path, data: Path) -> None:
    """Create the cluster beside its place and move it there when complete: a killed start leaves no half one."""
    draft = data.with_name("postgres.new")
    shutil.rmtree(draft, ignore_errors=True)
    command: list[str | Path] = [initdb, "-D", draft, "-U", "dunning", "-A", "trust", "-E", "UTF8", "--locale=C"]
    log = site.folder / "postgres.log"
    with _opened(log, os.O_APPEND) as out:
        created = subprocess.run(command, check=False, stdout=out, **_process(site))
    if created.returncode != 0:
        raise ServerFailed(data, "could not be created.", log)
    draft.rename(data)


def _create_database(sockets: Path) -> None:
    with closing(_connect(sockets)) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'dunning'").fetchone():
            connection.execute("CREATE DATABASE dunning")


def _connect(sockets: Path) -> psycopg.Connection[Any]:
    here = str(sockets)
    return psycopg.connect(host=here, port=5432, user="dunning", dbname="postgres", autocommit=True, connect_timeout=5)


def _postgres_answers(sockets: Path) -> bool:
    try:
        _connect(sockets).close()
    except psycopg.OperationalError:
        return False
    return True


def _valkey_answers(address: Path) -> bool:
    # Not redis-py: it meets a missing socket with seconds of retries.
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(str(address))
            client.sendall(b"PING\r\n")
            return client.recv(5) == b"+PONG"
        except OSError:
            return False


def _urls(sockets: Path) -> Servers:
    place = quote(str(sockets))
    return Servers(
        database_url=f"postgresql+psycopg://dunning@/dunning?host={place}&port=5432",
        broker_url=f"redis+socket://{place}/valkey.sock?virtual_host=0",
    )


# Starting and stopping


def _start(site: Site, server: _Server) -> None:
    """Start the server unless it answers, now or soon: one that a killed process left behind is reused."""
    if _comes_up(site.folder, server):
        return
    _launch(site, server)
    if not _comes_up(site.folder, server):
        raise ServerFailed(server.name, "did not start.", site.folder / f"{server.name}.log")


def _comes_up(folder: Path, server: _Server) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while not (up := server.answers()) and not _is_gone(folder, server) and time.monotonic() < deadline:
        time.sleep(0.01)
    return up


def _launch(site: Site, server: _Server) -> None:
    """Run the server as nobody's child, in a session of its own, holding its lock."""
    log = site.folder / f"{server.name}.log"
    with _opened(site.folder / f"{server.name}.lock") as lock, _opened(log, os.O_APPEND) as out:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerFailed(server.name, "is running but does not answer.", log) from None
        for path in server.leftovers:
            path.unlink(missing_ok=True)
        # The shell leaves at once, so no caller has a child to wait for.
        command = ["sh", "-c", '"$@" &', "sh", *server.command]
        subprocess.run(command, check=True, stdout=out, pass_fds=(lock,), **_process(site))


def _stop(site: Site, server: _Server) -> None:
    for name in ("-INT", "-KILL"):
        if _is_gone(site.folder, server):
            return
        with suppress(FileNotFoundError):
            pid = server.pid_file.read_text().split()[0]
            # As the servers' account: whoever can write this file must not borrow root's right to signal anybody.
            command = ["sh", "-c", 'kill "$@"', "sh", name, pid]
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL, **_process(site))
        deadline = time.monotonic() + STOP_SECONDS
        while not _is_gone(site.folder, server) and time.monotonic() < deadline:
            time.sleep(0.01)


def _is_gone(folder: Path, server: _Server) -> bool:
    with _opened(folder / f"{server.name}.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _process(site: Site) -> dict[str, Any]:
    """Give a server its own session (Ctrl-C is not for it) and none of our environment (which may hold secrets)."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    return {"cwd": site.home, "env": environment, "start_new_session": True, **streams, **site.account}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with _opened(folder / "door.lock") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        yield


@contextmanager
def _opened(path: Path, flags: int = 0) -> Iterator[int]:
    """Open a lock or a log. Never through a link: root may be at work in somebody else's folder."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
