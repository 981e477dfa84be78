"""The queue in front of the pool: first come, first served, and bounded."""

import asyncio

import pytest

from fastapi_k8s import connection_pool
from fastapi_k8s.connection_pool import ConnectionQueue

TIMEOUT_SECONDS = 10


class Clock:
    """Replaces the clock of the queue."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(connection_pool, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def occupy(queue: ConnectionQueue, users: int) -> None:
    for _ in range(users):
        await queue.enter()


async def start_waiting(queue: ConnectionQueue, users: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(queue.enter()) for _ in range(users)]
    await asyncio.sleep(0)
    return tasks


async def serve_everyone(
    queue: ConnectionQueue, waiting: list[asyncio.Task[None]], clock: Clock, seconds: float
) -> None:
    """Let each of those that wait enter after `seconds`."""
    for task in waiting:
        clock.now += seconds
        queue.leave()
        await task


async def test_the_queue_admits_in_the_order_of_arrival() -> None:
    queue = ConnectionQueue(2, TIMEOUT_SECONDS)
    await occupy(queue, 2)
    order = []

    async def enter(number: int) -> None:
        await queue.enter()
        order.append(number)
        queue.leave()

    tasks = [asyncio.create_task(enter(number)) for number in range(5)]
    await asyncio.sleep(0)
    queue.leave()
    newcomer = asyncio.create_task(enter(5))
    await asyncio.gather(*tasks, newcomer)
    assert order == [0, 1, 2, 3, 4, 5]


async def test_a_wait_ends_after_the_timeout_and_occupies_no_connection() -> None:
    queue = ConnectionQueue(1, timeout_seconds=0.01)
    await queue.enter()
    with pytest.raises(TimeoutError, match="no connection became free in time"):
        await queue.enter()
    queue.leave()
    await queue.enter()


async def test_the_queue_refuses_at_once_if_the_wait_would_exceed_the_timeout(clock: Clock) -> None:
    queue = ConnectionQueue(1, TIMEOUT_SECONDS)
    await queue.enter()
    await serve_everyone(queue, await start_waiting(queue, 200), clock, seconds=2)
    # Five users take 10 seconds, a sixth one would take 12.
    waiting = await start_waiting(queue, 5)
    with pytest.raises(TimeoutError, match="5 requests already wait"):
        await queue.enter()
    await serve_everyone(queue, waiting, clock, seconds=2)


async def test_the_queue_accepts_more_users_when_the_work_becomes_faster(clock: Clock) -> None:
    queue = ConnectionQueue(1, TIMEOUT_SECONDS)
    await queue.enter()
    await serve_everyone(queue, await start_waiting(queue, 200), clock, seconds=2)
    for _ in range(100):
        await serve_everyone(queue, await start_waiting(queue, 1), clock, seconds=0.01)
    waiting = await start_waiting(queue, 100)
    assert not any(task.done() for task in waiting)
    await serve_everyone(queue, waiting, clock, seconds=0.01)


async def test_a_pause_in_which_nobody_leaves_hardly_changes_the_estimate(clock: Clock) -> None:
    """Otherwise refusals could begin without a fault, and the CPU time they take would go on."""
    queue = ConnectionQueue(1, TIMEOUT_SECONDS)
    await queue.enter()
    await serve_everyone(queue, await start_waiting(queue, 100), clock, seconds=0.01)
    await serve_everyone(queue, await start_waiting(queue, 1), clock, seconds=9)
    waiting = await start_waiting(queue, 800)
    assert not any(task.done() for task in waiting)
    await serve_everyone(queue, waiting, clock, seconds=0.01)


async def test_the_queue_refuses_nobody_before_it_has_measured_for_half_a_second(
    clock: Clock,
) -> None:
    queue = ConnectionQueue(1, TIMEOUT_SECONDS)
    await queue.enter()
    await serve_everyone(queue, await start_waiting(queue, 1), clock, seconds=0.4)
    waiting = await start_waiting(queue, 100)
    assert not any(task.done() for task in waiting)
    await serve_everyone(queue, waiting, clock, seconds=0.01)


async def test_the_queue_refuses_at_once_if_nobody_has_left_for_the_timeout(clock: Clock) -> None:
    queue = ConnectionQueue(2, TIMEOUT_SECONDS)
    await occupy(queue, 2)
    clock.now += TIMEOUT_SECONDS + 1
    with pytest.raises(TimeoutError, match="0 requests already wait"):
        await queue.enter()
    queue.leave()
    await queue.enter()


async def test_a_pause_without_users_does_not_count(clock: Clock) -> None:
    queue = ConnectionQueue(1, TIMEOUT_SECONDS)
    await queue.enter()
    queue.leave()
    clock.now += 1000
    await queue.enter()
    [waiting] = await start_waiting(queue, 1)
    assert not waiting.done()
    await serve_everyone(queue, [waiting], clock, seconds=0.01)
