"""The faults, as context managers: a fault begins when the block is entered and ends with it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal, TypeAlias

import asyncpg

from tests.faults.stack import REDIS_PASSWORD, SMALL_DISK, Server, Stack

Inject: TypeAlias = Callable[[Stack, Server], AbstractAsyncContextManager[None]]

MISSING_REPLY_SECONDS = 1.2
"""How long a server does not reply before its connections are reset.

It is longer than the time for which requests share a readiness report (1 s), so that a check is in
progress too.
"""


@dataclass(frozen=True)
class Fault:
    """A way in which a server fails for at least `seconds`."""

    server: Literal["PostgreSQL", "Redis"]
    description: str
    inject: Inject
    seconds: float = 3

    @property
    def check(self) -> str:
        """The name of the server's check in /ready."""
        return "database" if self.server == "PostgreSQL" else "cache"

    def __str__(self) -> str:
        return f"{self.server}: {self.description}"

    def begin(self, stack: Stack) -> AbstractAsyncContextManager[None]:
        """The context manager in whose block the server fails."""
        server = stack.postgres if self.server == "PostgreSQL" else stack.redis
        return self.inject(stack, server)


def proxy_mode(mode: str) -> Inject:
    """A fault of the network, which the proxy simulates."""

    @asynccontextmanager
    async def inject(_: Stack, server: Server) -> AsyncIterator[None]:
        await server.set_proxy_mode(mode)
        try:
            yield
        finally:
            await server.set_proxy_mode("forward")

    return inject


@asynccontextmanager
async def reset_in_the_middle(_: Stack, server: Server) -> AsyncIterator[None]:
    """Reset the connections while requests wait for a reply. New connections succeed."""
    await server.set_proxy_mode("swallow")
    await asyncio.sleep(MISSING_REPLY_SECONDS)
    await server.set_proxy_mode("forward")
    yield


@asynccontextmanager
async def restart(_: Stack, server: Server) -> AsyncIterator[None]:
    """Stop the server as Kubernetes does, and start it again at the end."""
    await asyncio.to_thread(server.container.stop, time=20)
    async with stay_down(server):
        yield


@asynccontextmanager
async def kill(_: Stack, server: Server) -> AsyncIterator[None]:
    """Kill the server with SIGKILL, and start it again at the end."""
    await asyncio.to_thread(server.container.kill)
    async with stay_down(server):
        yield


@asynccontextmanager
async def stay_down(server: Server) -> AsyncIterator[None]:
    """Let the proxy refuse connections, as the machine of the server does while it is down."""
    await server.set_proxy_mode("refuse")
    try:
        yield
    finally:
        await asyncio.to_thread(server.container.start)
        await server.set_proxy_mode("forward")
        await server.wait_until_ready()


@asynccontextmanager
async def freeze(_: Stack, server: Server) -> AsyncIterator[None]:
    """Suspend all processes of the server. The kernel still accepts connections."""
    await asyncio.to_thread(server.container.pause)
    try:
        yield
    finally:
        await asyncio.to_thread(server.container.unpause)


@asynccontextmanager
async def occupy_connections(stack: Stack, server: Server) -> AsyncIterator[None]:
    """Close the connections of the application, and occupy all that PostgreSQL allows."""
    async with AsyncExitStack() as connections:
        await server.set_proxy_mode("refuse")
        connections.push_async_callback(server.set_proxy_mode, "forward")
        with suppress(asyncpg.TooManyConnectionsError):
            while True:
                connection = await stack.connect_to_postgres()
                connections.push_async_callback(connection.close)
        await server.set_proxy_mode("forward")
        yield


@asynccontextmanager
async def make_postgres_read_only(stack: Stack, _: Server) -> AsyncIterator[None]:
    """Every transaction becomes read-only, as on a standby."""
    reload = "SELECT pg_reload_conf()"
    await stack.execute_sql("ALTER SYSTEM SET default_transaction_read_only = on", reload)
    try:
        yield
    finally:
        await stack.execute_sql("ALTER SYSTEM RESET default_transaction_read_only", reload)


# example
@asynccontextmanager
async def fill_postgres_disk(stack: Stack, server: Server) -> AsyncIterator[None]:
    """Move the table to a small disk, and fill the disk."""
    folder = f"{SMALL_DISK}/data"
    file = f"{SMALL_DISK}/file"
    await server.run("install", "-d", "-o", "postgres", folder)
    await stack.execute_sql(
        f"CREATE TABLESPACE small LOCATION '{folder}'", "ALTER TABLE items SET TABLESPACE small"
    )
    try:
        await server.run("sh", "-c", f"dd if=/dev/zero of={file} bs=8k || true")
        yield
    finally:
        await server.run("rm", file)
        await stack.execute_sql(
            "ALTER TABLE items SET TABLESPACE pg_default", "DROP TABLESPACE small"
        )
        await server.run("rm", "-r", folder)


@asynccontextmanager
async def lock_table(stack: Stack, _: Server) -> AsyncIterator[None]:
    """Hold the lock that a migration takes. Every statement that uses the table waits for it."""
    connection = await stack.connect_to_postgres()
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


# end example


@asynccontextmanager
async def lower_maxclients(stack: Stack, server: Server) -> AsyncIterator[None]:
    """Close the connections of the application, and allow no new one."""
    async with stack.connect_to_redis() as redis:
        await server.set_proxy_mode("refuse")
        try:
            await redis.config_set("maxclients", 1)
            await server.set_proxy_mode("forward")
            yield
        finally:
            await redis.config_set("maxclients", 10_000)
            await server.set_proxy_mode("forward")


@asynccontextmanager
async def forbid_redis_writes(stack: Stack, _: Server) -> AsyncIterator[None]:
    """The user of the application may only read."""
    async with stack.connect_to_redis() as redis:
        await redis.acl_setuser("default", enabled=True, categories=["-@write"])
        try:
            yield
        finally:
            await redis.acl_setuser("default", enabled=True, categories=["+@write"])


@asynccontextmanager
async def fill_redis_disk(stack: Stack, server: Server) -> AsyncIterator[None]:
    """Redis cannot save a snapshot, and refuses writes."""
    async with stack.connect_to_redis() as redis:

        async def wait_for_snapshot(status: str) -> None:
            while (await redis.info("persistence"))["rdb_last_bgsave_status"] != status:
                await asyncio.sleep(0.05)

        await redis.config_set("save", "3600 1")
        try:
            await server.run("sh", "-c", "dd if=/dev/zero of=/data/file bs=4k || true")
            await redis.bgsave()
            await wait_for_snapshot("err")
            yield
        finally:
            await server.run("rm", "-f", "/data/file")
            await redis.bgsave()
            await wait_for_snapshot("ok")
            await redis.config_set("save", "")


@asynccontextmanager
async def limit_redis_memory(stack: Stack, _: Server) -> AsyncIterator[None]:
    """The memory is full, and Redis removes nothing."""
    async with stack.connect_to_redis() as redis:
        await redis.config_set("maxmemory", 1)
        try:
            yield
        finally:
            await redis.config_set("maxmemory", 0)


@asynccontextmanager
async def change_redis_password(stack: Stack, _: Server) -> AsyncIterator[None]:
    """The password of the application is wrong. Its connections are closed."""
    async with stack.connect_to_redis() as redis:
        await redis.config_set("requirepass", "another")
        try:
            await redis.client_kill_filter(_type="normal", skipme=True)
            yield
        finally:
            await redis.config_set("requirepass", REDIS_PASSWORD)


@asynccontextmanager
async def make_redis_a_replica(stack: Stack, _: Server) -> AsyncIterator[None]:
    """Redis becomes a replica of another one, as after a failover."""
    async with stack.connect_to_redis() as redis:
        await redis.replicaof("127.0.0.1", "1")
        try:
            yield
        finally:
            await redis.replicaof("NO", "ONE")


# example
@asynccontextmanager
async def replace_key(stack: Stack, _: Server) -> AsyncIterator[None]:
    """Every cached item becomes a list."""
    async with stack.connect_to_redis() as redis:
        keys = [key async for key in redis.scan_iter("items:*")]
        async with redis.pipeline() as transaction:
            for key in keys:
                transaction.delete(key)
                transaction.lpush(key, "element")
            await transaction.execute()
        try:
            yield
        finally:
            await redis.delete(*keys)


# end example


FAULTS = [
    Fault("PostgreSQL", "connections are refused", proxy_mode("refuse")),
    Fault("PostgreSQL", "nothing is answered (black hole)", proxy_mode("swallow"), seconds=7),
    Fault("PostgreSQL", "each reply takes 2 s longer", proxy_mode("delay"), seconds=6),
    Fault("PostgreSQL", "connections are reset in the middle of a query", reset_in_the_middle),
    Fault("PostgreSQL", "restart", restart),
    Fault("PostgreSQL", "killed with SIGKILL", kill),
    Fault("PostgreSQL", "frozen for 10 s", freeze, seconds=10),
    Fault("PostgreSQL", "too many connections", occupy_connections),
    Fault("PostgreSQL", "read-only", make_postgres_read_only),
    Fault("PostgreSQL", "disk full", fill_postgres_disk),  # example
    Fault("PostgreSQL", "table locked", lock_table, seconds=7),  # example
    Fault("Redis", "connections are refused", proxy_mode("refuse")),
    Fault("Redis", "nothing is answered (black hole)", proxy_mode("swallow")),
    Fault("Redis", "each reply takes 2 s longer", proxy_mode("delay")),
    Fault("Redis", "connections are reset in the middle of a command", reset_in_the_middle),
    Fault("Redis", "restart", restart),
    Fault("Redis", "killed with SIGKILL", kill),
    Fault("Redis", "frozen for 10 s", freeze, seconds=10),
    Fault("Redis", "too many connections", lower_maxclients),
    Fault("Redis", "read-only", forbid_redis_writes),
    Fault("Redis", "disk full", fill_redis_disk),
    Fault("Redis", "out of memory", limit_redis_memory),
    Fault("Redis", "wrong password", change_redis_password),
    Fault("Redis", "replica", make_redis_a_replica),
    Fault("Redis", "key of another type", replace_key),  # example
]
