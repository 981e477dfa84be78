"""Open /docs in Chromium, execute an operation, and print what happened as JSON.

Usage: `python browse_docs.py URL OPERATION`. It runs in a container in which chromedriver listens
on port 9515. The endpoints are those of https://www.w3.org/TR/webdriver2/, and the logs those of
https://developer.chrome.com/docs/chromedriver/logging.
"""

import json
import sys
from typing import Any
from urllib.request import Request, urlopen

CHROMEDRIVER = "http://127.0.0.1:9515"
TIMEOUT_SECONDS = 30
CAPABILITIES = {
    "browserName": "chrome",
    "timeouts": {"implicit": TIMEOUT_SECONDS * 1000},
    "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
    "goog:chromeOptions": {
        # The sandbox of Chromium needs system calls that Docker does not allow.
        "args": [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--window-size=1200,2000",
        ],
    },
}


class Browser:
    """A session of Chromium. Finding an element waits until it exists."""

    def __init__(self) -> None:
        self.url = f"{CHROMEDRIVER}/session"
        session = self.post("", {"capabilities": {"alwaysMatch": CAPABILITIES}})
        self.url += f"/{session['sessionId']}"

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send a command, and return its result."""
        headers = {"Content-Type": "application/json"}
        request = Request(self.url + path, json.dumps(body).encode(), headers)
        with urlopen(request, timeout=2 * TIMEOUT_SECONDS) as response:
            return json.load(response)["value"]

    def click(self, selector: str) -> None:
        """Click the element that a CSS selector finds."""
        element = self.post("/element", {"using": "css selector", "value": selector})
        [element_id] = element.values()
        self.post(f"/element/{element_id}/click", {})

    def read_texts(self, selector: str) -> list[str]:
        """The texts of the elements that a CSS selector finds, of which there is at least one."""
        self.post("/element", {"using": "css selector", "value": selector})
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
        texts: list[str] = self.post("/execute/sync", {"script": script, "args": [selector]})
        return texts

    def read_log(self, kind: str) -> list[dict[str, Any]]:
        """The entries of a log since the last call."""
        entries: list[dict[str, Any]] = self.post("/se/log", {"type": kind})
        return entries

    def read_network_events(self) -> list[dict[str, Any]]:
        """What the DevTools protocol reports about requests."""
        messages = [json.loads(entry["message"]) for entry in self.read_log("performance")]
        events = [message["message"] for message in messages]
        return [event for event in events if event["method"].startswith("Network.")]


def main() -> None:
    """Print the operations of the page, the response of one, and all requests and problems."""
    url, operation = sys.argv[1:]
    browser = Browser()
    browser.post("/url", {"url": url})
    result: dict[str, Any] = {"operations": browser.read_texts(".opblock-summary-path")}
    block = f"#operations-{operation}"
    browser.click(f"{block} .opblock-summary-control")
    browser.click(f"{block} .try-out__btn")
    browser.click(f"{block} .execute")
    live_response = f"{block} .live-responses-table .response"
    result["status"] = browser.read_texts(f"{live_response} .response-col_status")
    result["body"] = browser.read_texts(f"{live_response} .highlight-code code")
    events = browser.read_network_events()
    result["console"] = [entry["message"] for entry in browser.read_log("browser")]
    result["requests"] = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    result["failures"] = [
        event["params"] for event in events if event["method"] == "Network.loadingFailed"
    ]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
