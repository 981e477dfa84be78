"""What tests need of this checkout. The functions are in tools/, which uses them too."""

from tools.checkout import PROJECT, copy_checkout, get_docker_environment, run_command

__all__ = [
    "PROJECT",
    "copy_checkout",
    "get_docker_environment",
    "inherited",
    "output",
    "run_command",
]

inherited = get_docker_environment
output = run_command
