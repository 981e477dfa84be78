"""A TCP proxy whose connections can fail, as those of a load balancer or a firewall."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""A value of SO_LINGER with which close() sends RST instead of FIN."""


class FaultyProxy:
    """Forwards new connections to `server_port` of 127.0.0.1, and can make open ones fail."""

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self.server_port = server_port
        self._clients: set[asyncio.StreamWriter] = set()
        self._silent_clients: set[asyncio.StreamWriter] = set()

    async def reset(self) -> int:
        """Reset all connections, and return how many there were."""
        clients = [client for client in self._clients if not client.is_closing()]
        for client in clients:
            client_socket = client.get_extra_info("socket")
            client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        await self.close()
        return len(clients)

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients:
            client.transport.abort()
        async with asyncio.timeout(20):
            while self._clients:
                await asyncio.sleep(0.01)

    def silence(self) -> None:
        """Drop what is sent on the open connections, as a firewall does with idle ones."""
        self._silent_clients |= self._clients

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection."""
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.server_port)
        self._clients.add(writer)
        await asyncio.gather(
            self._forward(reader, server_writer, client=writer),
            self._forward(server_reader, writer, client=writer),
        )
        self._clients.discard(writer)

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
    ) -> None:
        # uvloop raises RuntimeError if the connection was reset.
        with suppress(OSError, RuntimeError):
            while data := await reader.read(65_536):
                if client not in self._silent_clients:
                    writer.write(data)
                    await writer.drain()
        writer.close()


@asynccontextmanager
async def faulty_proxy(server_port: int) -> AsyncIterator[FaultyProxy]:
    """A proxy on a random port, in front of `server_port`."""
    proxy = FaultyProxy(server_port)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
