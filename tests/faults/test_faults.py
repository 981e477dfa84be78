"""While PostgreSQL or Redis fails, the responses are those of docs/operations.md.

`make faults` sets `WRITE_FAULTS=1`, with which the tests write the tables of the page.
"""

import json
import os
from datetime import UTC, datetime
from http import HTTPStatus

import pytest

from fastapi_k8s.settings import Settings
from tests.faults.faults import FAULTS, Fault
from tests.faults.measurement import Observation, observe
from tests.faults.page import faults_of, parse_cell, read_rows, write_row
from tests.faults.stack import REDIS_TIMEOUT_SECONDS, Stack

DELAY_SECONDS = 2.0
"""How much longer than its limit a request may take."""

DELAYED_STEPS = 3
"""How many steps of a request a busy machine may delay as much as a request to /health."""

REQUEST_TIMEOUT_SECONDS = Settings.model_fields["request_timeout"].default
RECOVERY_LIMIT_SECONDS = 5.0
LIVENESS_PROBE_TIMEOUT_SECONDS = 5.0

SUCCESSES = {HTTPStatus.OK, HTTPStatus.CREATED}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_responses_are_those_of_the_page_and_the_application_recovers(
    stack: Stack, fault: Fault
) -> None:
    begun_at = datetime.now(UTC)
    observation = await observe(stack, fault)
    check_log(stack, begun_at)
    check_statuses(fault, observation)
    check_durations(fault, observation)
    if "WRITE_FAULTS" in os.environ:
        write_row(fault, observation)
    else:
        compare_with_page(fault, observation)


def check_log(stack: Stack, begun_at: datetime) -> None:
    """No error is logged, and no worker is replaced."""
    for line in str(stack.application.logs(since=begun_at)).splitlines():
        record = json.loads(line)
        assert record["level"] in {"INFO", "WARNING"}, record
        assert not record["message"].startswith("Booting worker")


def check_statuses(fault: Fault, observation: Observation) -> None:
    """PostgreSQL's faults lead to 503 with Retry-After and nothing else, Redis' to no failure."""
    allowed = SUCCESSES
    if fault.server == "PostgreSQL":
        allowed = SUCCESSES | {HTTPStatus.SERVICE_UNAVAILABLE}
    for kind, results in observation.results.items():
        assert results.statuses <= allowed, kind
        assert not results.lacks_retry_after, kind
    assert observation.results["`/health`"].statuses == {HTTPStatus.OK}


def check_durations(fault: Fault, observation: Observation) -> None:
    """No request takes longer than its limit, and neither does recovery."""
    assert observation.results["`/health`"].longest_seconds < LIVENESS_PROBE_TIMEOUT_SECONDS
    delay_seconds = find_delay(observation)
    limit = REQUEST_TIMEOUT_SECONDS if fault.server == "PostgreSQL" else REDIS_TIMEOUT_SECONDS
    for kind, results in observation.results.items():
        assert results.longest_seconds <= limit + delay_seconds, kind
    assert observation.recovery_seconds <= RECOVERY_LIMIT_SECONDS + delay_seconds


def find_delay(observation: Observation) -> float:
    """Return how many seconds longer than its limit a request may have taken.

    A request to /health waits for nothing, so its duration shows how busy the machine is.
    """
    return DELAY_SECONDS + DELAYED_STEPS * observation.results["`/health`"].longest_seconds


def equate_timeouts(results: set[str]) -> set[str]:
    """Replace `timeout`: a check that begins just before a connection is reset ends with it."""
    return {"unreachable" if result == "timeout" else result for result in results}


def compare_with_page(fault: Fault, observation: Observation) -> None:
    """The statuses and checks are those of the page, and no request takes longer than there."""
    rows = read_rows(fault.server)
    if not rows:
        return
    _, *cells, checks, _ = rows[fault.description]
    delay_seconds = find_delay(observation)
    for (kind, results), cell in zip(observation.results.items(), cells, strict=True):
        status, limit = parse_cell(cell)
        assert results.worst_status == status, kind
        assert results.longest_seconds <= limit + delay_seconds, kind
    # Which of the documented failures are seen depends on when a check begins.
    documented = set(checks.split(", "))
    assert checks == "ok" or equate_timeouts(observation.failures) & equate_timeouts(documented)


@pytest.mark.parametrize("server", ["PostgreSQL", "Redis"])  # example
def test_the_page_has_a_row_for_each_fault(server: str) -> None:  # example
    descriptions = [fault.description for fault in faults_of(server)]
    assert list(read_rows(server)) == descriptions
