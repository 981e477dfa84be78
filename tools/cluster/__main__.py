"""`python -m tools.cluster ACTION`: what `make deploy`, `make restart` and the other targets run.

Variables of make arrive as environment variables: CONTEXT, NAMESPACE, IMAGE_NAME, IMAGE_LOADER,
TIMEOUT, and those that a single action reads (N, PORT).
"""

import argparse
import sys

from . import actions
from .kubectl import ClusterError

ACTIONS = {
    "deploy": actions.deploy,
    "restart": actions.restart,
    "rollback": actions.rollback,
    "status": actions.show_status,
    "logs": actions.follow_logs,
    "port-forward": actions.forward_port,
    "scale": actions.scale,
    "shell": actions.open_shell,
    "undeploy": actions.undeploy,
    "destroy": actions.destroy,
}


def main() -> None:
    """Run the action that the command line names. Exits with a message if the action fails."""
    parser = argparse.ArgumentParser(prog="python -m tools.cluster")
    parser.add_argument("action", choices=ACTIONS)
    arguments = parser.parse_args()
    action = ACTIONS[arguments.action]
    try:
        action(actions.Options.from_environment())
    except ClusterError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)  # the shell's code for a program that Ctrl-C ended


if __name__ == "__main__":
    main()
