"""The tables of docs/operations.md about what clients see while a server fails."""

import re
from math import ceil

from fastapi_k8s.readiness import CHECK_TIMEOUT_SECONDS
from fastapi_k8s.settings import Settings
from tests.faults.faults import FAULTS, Fault
from tests.faults.measurement import Observation, Results
from tools.checkout import PROJECT

DEFAULTS = Settings.model_fields
PAGE = PROJECT / "docs" / "operations.md"
TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
CELL = re.compile(r"(\d+)(?:, (\d) s)?")

AT_ONCE_SECONDS = 0.5
LIMITS_SECONDS = (
    int(CHECK_TIMEOUT_SECONDS),
    DEFAULTS["database_statement_timeout"].default,
    DEFAULTS["request_timeout"].default,
)
"""The times in the tables: the limit of a check (and of Redis), of a statement, of a request.

Shorter times are not in the tables, because they depend on the machine.
"""


def format_row(fault: Fault, observation: Observation) -> list[str]:
    """Return the cells of a fault's row."""
    cells = [format_cell(results) for results in observation.results.values()]
    recovery = f"{ceil(observation.recovery_seconds)} s"
    checks = ", ".join(sorted(observation.failures)) or "ok"
    return [fault.description, *cells, checks, recovery]


def format_cell(results: Results) -> str:
    """Return the worst status, and the limit that the longest request has reached, if any."""
    if results.longest_seconds <= AT_ONCE_SECONDS:
        return f"{results.worst_status}"
    for limit in LIMITS_SECONDS:
        if results.longest_seconds <= limit + AT_ONCE_SECONDS:
            return f"{results.worst_status}, {limit} s"
    raise ValueError(f"a request took {results.longest_seconds} s")


def parse_cell(cell: str) -> tuple[int, float]:
    """Return the status and the limit, in seconds, of a cell."""
    match = CELL.fullmatch(cell)
    assert match is not None, f"not a status and a time: {cell}"
    return int(match[1]), float(match[2] or AT_ONCE_SECONDS)


def read_rows(server: str) -> dict[str, list[str]]:
    """Return the rows of the table about a server, by their first cells.

    A service without the example has no table until `make faults` writes one.
    """
    table = TABLE.search(find_section(server))
    if table is None:
        return {}
    lines = table[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row for row in rows}


def write_row(fault: Fault, observation: Observation) -> None:
    """Add the row of a fault to its table, or replace it."""
    rows = read_rows(fault.server)
    rows[fault.description] = format_row(fault, observation)
    header = ["Fault", *observation.results, "check", "recovery"]
    table = f"{format_line(header)}|{'---|' * len(header)}\n"
    for each in faults_of(fault.server):
        if each.description in rows:
            table += format_line(rows[each.description])
    section = find_section(fault.server)
    if TABLE.search(section):
        new_section = TABLE.sub(lambda _: table, section, count=1)
    else:
        new_section = f"{section}{table}\n"
    PAGE.write_text(PAGE.read_text().replace(section, new_section))


def format_line(cells: list[str]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |\n"


def faults_of(server: str) -> list[Fault]:
    """Return the faults of a server, in the order of its table."""
    return [fault for fault in FAULTS if fault.server == server]


def find_section(server: str) -> str:
    """Return the section about a server: its heading, and the text up to the next heading."""
    section = re.compile(rf"^### While {server} fails\n.*?(?=^#)", re.MULTILINE | re.DOTALL)
    match = section.search(PAGE.read_text())
    assert match is not None, f"{PAGE} has no section about {server}"
    return match[0]
