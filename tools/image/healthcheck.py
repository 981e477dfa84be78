"""The image's `HEALTHCHECK`: check that `GET /health` on localhost returns 200.

The port is read from `PORT` (8000 if it is not set). The exit code is 0 on success. Otherwise the
exit code is not 0, and the reason is printed to standard error.
"""

import http.client
import os
import signal
import sys

TIMEOUT_SECONDS = 3


def check_health(port: int) -> None:
    """Exit with an error message unless `GET /health` returns 200 on this port."""
    connection = http.client.HTTPConnection("localhost", port)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"GET /health failed: {error}")
    if status != http.HTTPStatus.OK:
        sys.exit(f"GET /health returned status {status}")


if __name__ == "__main__":
    # A socket timeout applies to each read, so a response that arrives byte by byte could take
    # forever. The alarm terminates the process whatever it is waiting for.
    signal.alarm(TIMEOUT_SECONDS)
    check_health(int(os.environ.get("PORT", "8000")))
