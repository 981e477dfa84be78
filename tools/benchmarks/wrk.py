"""The load generator wrk (https://github.com/wg/wrk)."""

import re
import subprocess
from pathlib import Path

CONNECTIONS = 32


def count_requests(
    url: str, seconds: int, script: Path | None = None, script_arguments: tuple[str, ...] = ()
) -> int:
    """Send requests to `url` for `seconds`, and return how many got a response.

    `script` is a Lua script for wrk. Raises RuntimeError if a response had a status other than 2xx
    or 3xx, if a connection failed, or if no request got a response.
    """
    command = ["wrk", "--threads=1", "--timeout=10s"]
    command += [f"--connections={CONNECTIONS}", f"--duration={seconds}s"]
    if script:
        command.append(f"--script={script}")
    command += [url, "--", *script_arguments]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    requests = re.search(r"(\d+) requests in", report)
    if not requests or requests[1] == "0" or re.search(r"Non-2xx|Socket errors", report):
        raise RuntimeError(f"{' '.join(command)} reports\n{report}")
    return int(requests[1])
