"""A TCP proxy whose connections fail on command. It runs in a container, without dependencies.

    python tcp_proxy.py CONTROL_PORT PORT=HOST:PORT...

Each of the other ports leads to a server. A line on the control port, such as `5432 refuse`,
changes what happens on one of them. The response is an empty line.
"""

import asyncio
import socket
import struct
import sys
from contextlib import suppress
from time import monotonic
from typing import TypeAlias

LATENCY_SECONDS = 2.0
Chunks: TypeAlias = "asyncio.Queue[tuple[float, bytes]]"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""A value of SO_LINGER with which close() sends RST instead of FIN."""


class Proxy:
    """Forwards the connections to one port, unless `mode` is not `forward`.

    - `refuse`: connections are refused, and the open ones are reset.
    - `swallow`: connections are accepted, and the data on them is discarded. They are reset when
      the mode changes.
    - `delay`: what the server sends arrives LATENCY_SECONDS later.
    """

    def __init__(self, port: int, server_host: str, server_port: int) -> None:
        self._port = port
        self._server_host = server_host
        self._server_port = server_port
        self._listener: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self.mode = "forward"

    async def listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._handle, port=self._port)

    async def set_mode(self, mode: str) -> None:
        if mode == "refuse":
            self._stop_listening()
        else:
            await self.listen()
        has_lost_data = self.mode == "swallow"
        self.mode = mode
        if mode == "refuse" or has_lost_data:
            self._reset_connections()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _reset_connections(self) -> None:
        for client in self._clients:
            client_socket = client.get_extra_info("socket")
            client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            client.transport.abort()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        # The server may be down.
        with suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection(
                self._server_host, self._server_port
            )
            requests: Chunks = asyncio.Queue()
            replies: Chunks = asyncio.Queue()
            await asyncio.gather(
                self._receive(reader, requests, delay_seconds=0),
                self._send(requests, server_writer),
                self._receive(server_reader, replies, delay_seconds=LATENCY_SECONDS),
                self._send(replies, writer),
            )
        self._clients.discard(writer)
        writer.close()

    async def _receive(
        self, reader: asyncio.StreamReader, chunks: Chunks, delay_seconds: float
    ) -> None:
        """Put what arrives into `chunks`, with the time at which it is sent on."""
        with suppress(OSError):
            while data := await reader.read(65_536):
                delay = delay_seconds if self.mode == "delay" else 0
                if self.mode != "swallow":
                    chunks.put_nowait((monotonic() + delay, data))
        chunks.put_nowait((monotonic(), b""))

    async def _send(self, chunks: Chunks, writer: asyncio.StreamWriter) -> None:
        """Send what is in `chunks`. Close the connection at its end, an empty chunk."""
        with suppress(OSError):
            while True:
                due_at, data = await chunks.get()
                await asyncio.sleep(max(0, due_at - monotonic()))
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        writer.close()


async def main() -> None:
    """Run the proxies and the control port until the process is killed."""
    control_port, *routes = sys.argv[1:]
    proxies: dict[str, Proxy] = {}
    for route in routes:
        port, _, server = route.partition("=")
        host, _, server_port = server.partition(":")
        proxies[port] = Proxy(int(port), host, int(server_port))
        await proxies[port].listen()

    async def handle_command(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port, mode = (await reader.readline()).decode().split()
        await proxies[port].set_mode(mode)
        writer.write(b"\n")
        writer.close()

    control = await asyncio.start_server(handle_command, port=int(control_port))
    await control.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
