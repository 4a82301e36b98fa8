"""Where is measured: fresh servers and a fresh database in a folder of their own, gone afterwards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from worker import app
from worker.installation import installation
from worker.settings import load_settings


@contextmanager
def place(**settings: str) -> Iterator[Path]:
    """Give the folder of an empty installation with these settings; ``app.engine()`` is its database."""
    with TemporaryDirectory(prefix="dunning-bench-", ignore_cleanup_errors=True) as folder:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DUNNING_")}
        with patch.dict(os.environ, {**kept, "DUNNING_HOME": folder, **settings}, clear=True):
            _forget()
            try:
                with installation():
                    yield Path(folder)
            finally:
                _forget()
                # Of root, the servers' files lie elsewhere: another account has to reach them.
                shutil.rmtree((Path(folder) / "servers").resolve(), ignore_errors=True)


def _forget() -> None:
    """Have nothing of an earlier installation in this process."""
    for each in (load_settings, app.engine, app.gateway, app.policy):
        each.cache_clear()
