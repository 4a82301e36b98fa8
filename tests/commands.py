"""Which commands are there? All that the command line knows, each imported."""

from __future__ import annotations

from collections.abc import Iterator

import click

from worker.cli import main


def every(group: click.Group = main, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield a group with its name, its commands, and theirs."""
    yield before.strip(), group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        full = f"{before}{name}"
        yield from every(command, f"{full} ") if isinstance(command, click.Group) else ((full, command),)
