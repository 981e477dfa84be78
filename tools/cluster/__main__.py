"""`python -m tools.cluster ACTION`: what `make deploy`, `make restart` and their like do.

Variables of make reach it through the environment: CONTEXT, NAMESPACE, IMAGE_LOADER, TIMEOUT,
IMAGE_NAME, and what one action takes.
"""

import argparse
import sys

from . import actions
from .kubectl import ClusterError

ACTIONS = {
    "deploy": actions.deploy,
    "restart": actions.restart,
    "status": actions.status,
    "logs": actions.logs,
    "port-forward": actions.forward,
    "scale": actions.scale,
    "rollback": actions.rollback,
    "shell": actions.shell,
    "undeploy": actions.undeploy,
    "destroy": actions.destroy,
}


def main() -> None:
    """Do what the command line names. Leaves with a message if it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m tools.cluster")
    parser.add_argument("action", choices=ACTIONS)
    action = ACTIONS[parser.parse_args().action]
    try:
        action(actions.Options.from_environment())
    except ClusterError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
