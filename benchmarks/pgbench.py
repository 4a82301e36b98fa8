"""How fast is PostgreSQL itself? Its own pgbench runs a script of SQL against the database of the place."""

from __future__ import annotations

import re
import subprocess
from tempfile import NamedTemporaryFile

from sqlalchemy import make_url

from worker.embedded_site import find_programs
from worker.settings import load_settings


def pgbench(script: str, transactions: int, connections: int = 1) -> float:
    """Run the script so often in all, on so many connections; return transactions a second."""
    url = make_url(load_settings().database_url or "")
    each = max(transactions // connections, 1)
    where = ["-h", str(url.query["host"]), "-p", str(url.query["port"]), "-U", str(url.username), str(url.database)]
    with NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        program = str(find_programs().postgres.with_name("pgbench"))
        # Not vacuumed before (-n); each connection has a thread only where there is a core for it.
        told = ["-n", "-f", file.name, "-c", str(connections), "-j", str(min(connections, 2)), "-t", str(each)]
        done = subprocess.run([program, *told, *where], check=True, capture_output=True, text=True)
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    if found is None:
        msg = f"pgbench told no rate: {done.stdout}"
        raise ValueError(msg)
    return float(found[1])
