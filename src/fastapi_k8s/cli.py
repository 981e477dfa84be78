"""The command line program of the service."""

import argparse
import asyncio
import logging
import logging.config
import signal
import sys
from types import FrameType

from . import NAME
from .migrations.migrate import MigrationError, migrate
from .observability.logs import logging_config
from .settings import load_settings


def main() -> None:
    """Run the subcommand of the command line. Exits with code 2 if a setting is invalid."""
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, exit_on_signal)
    parser = argparse.ArgumentParser(prog=NAME)
    subcommands = parser.add_subparsers(required=True)
    migrate_parser = subcommands.add_parser("migrate", help="upgrade the schema of the database")
    migrate_parser.add_argument(
        "--wait",
        type=float,
        default=60,
        metavar="SECONDS",
        help="how long to wait for PostgreSQL and for each lock (default: %(default)s)",
    )
    migrate_parser.set_defaults(run=run_migrate)
    arguments = parser.parse_args()
    arguments.run(arguments)


def exit_on_signal(signal_number: int, _: FrameType | None) -> None:
    """Exit with the code that a shell would report: 143 after SIGTERM, 130 after SIGINT."""
    # asyncio cancels the migration, and would log what Alembic raises when it is interrupted.
    logging.disable()
    sys.exit(128 + signal_number)


def run_migrate(arguments: argparse.Namespace) -> None:
    """`migrate`: exits with code 1 and a message if PostgreSQL cannot be used."""
    logging.config.dictConfig(logging_config())
    try:
        asyncio.run(migrate(load_settings(), arguments.wait))
    except MigrationError as error:
        sys.exit(f"{NAME}: {error}")
