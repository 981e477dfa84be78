"""The service in its image, through the port that the container publishes."""

import json
import subprocess

import httpx

from tests.checkout import output
from tests.container.conftest import PASSWORD, Service


def test_items_are_created_read_replaced_and_deleted(service: Service) -> None:  # example
    client = service.client
    created = client.post("/items", json={"name": "Lamp"})
    assert created.status_code == httpx.codes.CREATED
    path = created.headers["Location"]
    assert client.get(path).json() == created.json()
    replaced = client.put(
        path, json={"name": "Desk lamp"}, headers={"If-Match": created.headers["ETag"]}
    )
    assert replaced.json()["name"] == "Desk lamp"
    assert path.endswith(client.get("/items").json()["items"][0]["id"])
    assert client.delete(path).status_code == httpx.codes.NO_CONTENT
    assert client.get(path).status_code == httpx.codes.NOT_FOUND


def test_it_is_ready_with_its_database_and_its_cache(service: Service) -> None:
    assert service.client.get("/ready").json() == {
        "status": "ready",
        "checks": {"database": "ok", "cache": "ok"},
    }


def test_the_version_is_the_build_s(service: Service) -> None:
    told = service.client.get("/version").json()
    assert (told["version"], told["commit"]) == ("1.2.3", "0123abc")
    assert told["python"].startswith("3.14.")


def test_logs_are_json_lines_on_standard_output(service: Service) -> None:
    service.client.get("/version")
    service.client.get("/nowhere")
    logs = subprocess.run(
        ["docker", "logs", service.container.id], capture_output=True, check=True, text=True
    )
    assert logs.stderr == ""
    lines = [json.loads(line) for line in logs.stdout.splitlines()]
    assert {"/version", "/nowhere"} <= {line.get("path") for line in lines}


def test_no_secret_is_in_logs_image_or_history(service: Service, image: str) -> None:
    service.client.get("/ready")
    assert PASSWORD in str(service.container.config.env)  # where it belongs
    told = [
        str(service.container.logs()),
        output(["docker", "image", "inspect", image]),
        output(["docker", "history", "--no-trunc", image]),
    ]
    assert [text for text in told if PASSWORD in text or "postgresql://app" in text] == []
