"""The application in its image, through the published port of the container."""

import json
import subprocess

import httpx

from tests.container.conftest import POSTGRES_PASSWORD, Application
from tools.checkout import run_command
from tools.dev.servers import wait_until


def test_items_can_be_created_read_replaced_and_deleted(  # example
    application: Application,
) -> None:
    client = application.client
    create_response = client.post("/items", json={"name": "Lamp"})
    assert create_response.status_code == httpx.codes.CREATED
    path = create_response.headers["Location"]
    assert client.get(path).json() == create_response.json()
    if_match = {"If-Match": create_response.headers["ETag"]}
    replace_response = client.put(path, json={"name": "Desk lamp"}, headers=if_match)
    assert replace_response.json()["name"] == "Desk lamp"
    newest_item = client.get("/items").json()["items"][0]
    assert path.endswith(newest_item["id"])
    assert client.delete(path).status_code == httpx.codes.NO_CONTENT
    assert client.get(path).status_code == httpx.codes.NOT_FOUND


def test_ready_reports_the_database_and_the_cache(application: Application) -> None:
    assert application.client.get("/ready").json() == {
        "status": "ready",
        "checks": {"database": "ok", "cache": "ok"},
    }


def test_version_reports_the_build_arguments(application: Application) -> None:
    body = application.client.get("/version").json()
    assert (body["version"], body["commit"]) == ("1.2.3", "0123abc")
    assert body["python"].startswith("3.14.")


def test_logs_are_json_lines_on_standard_output(application: Application) -> None:
    application.client.get("/version")
    application.client.get("/nowhere")

    def read_logged_paths() -> set[str | None]:
        """Return the paths in the access log. Fails if a line is not JSON, or on stderr."""
        command = ["docker", "logs", application.container.id]
        logs = subprocess.run(command, capture_output=True, check=True, text=True)
        assert logs.stderr == ""
        return {json.loads(line).get("path") for line in logs.stdout.splitlines()}

    # Docker can store a line later than the client receives the response.
    wait_until(lambda: {"/version", "/nowhere"} <= read_logged_paths(), 10, "the access log lines")


def test_the_password_is_not_in_logs_image_or_history(application: Application, image: str) -> None:
    application.client.get("/ready")
    # Otherwise this test would look for a password that the application does not have.
    assert POSTGRES_PASSWORD in str(application.container.config.env)
    texts = [
        str(application.container.logs()),
        run_command(["docker", "image", "inspect", image]),
        run_command(["docker", "history", "--no-trunc", image]),
    ]
    for text in texts:
        assert POSTGRES_PASSWORD not in text
        assert "postgresql://app" not in text
