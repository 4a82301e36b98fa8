"""Who sends webhooks? One process beside the one that is measured: ``python -m benchmarks.sender PORT FILE …``.

Requests are made ready and signed before the first one leaves, so that little is left to do between two of them. A
request that had to wait for a free connection is as late as its sender sees it: its time counts from when it was due.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.events import signed

Told = tuple[str, int, float]  # the event, the status (0: none), the seconds


@click.command()
@click.argument("port", type=int)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--connections", default=8)
@click.option("--rate", default=0.0, help="Requests that become due in a second; 0: as many as are answered.")
def main(port: int, file: Path, connections: int, rate: float) -> None:
    """Send the events of a file; print as JSON what became of each."""
    requests = [(json.loads(line)["id"], _request(line)) for line in file.read_bytes().splitlines()]
    begun = time.perf_counter()
    told = asyncio.run(_send(port, requests, connections, rate))
    click.echo(json.dumps({"seconds": time.perf_counter() - begun, "told": told}))


def _request(body: bytes) -> bytes:
    head = "POST /webhooks/stripe HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json; charset=utf-8\r\n"
    return f"{head}Stripe-Signature: {signed(body)}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def _send(port: int, requests: list[tuple[str, bytes]], connections: int, rate: float) -> list[Told]:
    lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(connections)]
    begun, told = time.perf_counter(), list[Told]()
    due = iter([(begun + number / rate if rate else 0.0, *request) for number, request in enumerate(requests)])
    await asyncio.gather(*(_over(*line, due, told) for line in lines))
    return told


async def _over(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    due: Iterator[tuple[float, str, bytes]],
    told: list[Told],
) -> None:
    """Send what is due over one connection, one after the other."""
    for at, name, request in due:
        if (wait := at - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        begun = at or time.perf_counter()
        try:
            writer.write(request)
            status = await _status(reader)
        except (OSError, asyncio.IncompleteReadError):
            told.append((name, 0, time.perf_counter() - begun))
            return
        told.append((name, status, time.perf_counter() - begun))
    writer.close()


async def _status(reader: asyncio.StreamReader) -> int:
    """Read one answer to its end; return its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    await reader.readexactly(int(head.partition("content-length:")[2].split("\r\n")[0]))
    return int(head.split()[1])


if __name__ == "__main__":
    main()
