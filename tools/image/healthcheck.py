"""Exit code 0 if `GET /health` answers 200 within 3 s, else not 0 and a line that says why."""

import http.client
import os
import signal
import sys

signal.alarm(3)  # ends the process, whatever it waits for
connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT", "8000")))
try:
    connection.request("GET", "/health")
    status = connection.getresponse().status
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"no answer: {error}")
if status != http.HTTPStatus.OK:
    sys.exit(f"answered {status}")
