"""How does long work show on a terminal that it goes on?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn


@contextmanager
def progress(what: str, *, quiet: bool) -> Iterator[Any]:
    """Show a counter on a terminal; yield a function that takes the number done, or None while finishing."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _number: None
        return
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), console=console, transient=True) as progress:
        task = progress.add_task(what)

        def step(number: int | None) -> None:
            progress.update(task, description="opening cases" if number is None else f"{number} {what}")

        yield step
