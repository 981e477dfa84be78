"""The settings that k8s.yaml gives: exactly those that exist, and enough connections for them."""

import re
from pathlib import Path

import pytest

from fastapi_k8s.settings import Settings
from tests.checkout import PROJECT
from tests.manifest.conftest import DOCUMENTS, find, pods
from tools.cluster.manifest import CONFIG_MAP
from tools.cluster.secret import secret_data

PASSWORD = "0123456789abcdef"
RESERVED = 3
"""PostgreSQL's superuser_reserved_connections, by default."""
READINESS = 1
"""Connections of a process besides its pool: the one of /ready."""


def test_the_config_map_and_the_secret_build_the_settings_exactly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """None is unknown, none that is required is missing, and production accepts them."""
    data = find("ConfigMap")["data"]
    (volume,) = (each for each in pods()["api"]["spec"]["volumes"] if each["name"] == "secret")
    secrets = {
        item["path"]: secret_data(PASSWORD)[item["key"]] for item in volume["secret"]["items"]
    }
    given = {**data, **secrets}
    assert {name.lower() for name in given} <= Settings.model_fields.keys()
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ENVIRONMENT", "production")
    for name, value in secrets.items():
        (tmp_path / name).write_text(value)
    settings = Settings(_env_file=None, _secrets_dir=tmp_path)
    assert settings.model_fields_set == {name.lower() for name in given} | {"environment"}


def test_every_key_of_the_secret_is_used_and_none_that_is_used_is_missing() -> None:
    used = {
        (volume["secret"]["secretName"], item["key"])
        for template in pods().values()
        for volume in template["spec"]["volumes"]
        for item in volume.get("secret", {}).get("items", [])
    }
    assert used == {("fastapi-k8s", key) for key in secret_data(PASSWORD)}


def test_postgresql_is_set_up_as_the_service_s_url_expects() -> None:
    (database,) = pods()["db"]["spec"]["containers"]
    given = {each["name"]: each["value"] for each in database["env"]}
    url = f"postgresql://{given['POSTGRES_USER']}:{PASSWORD}@db:5432/{given['POSTGRES_DB']}"
    assert secret_data(PASSWORD)["DATABASE_URL"] == url
    (mount,) = (each for each in database["volumeMounts"] if each["name"] == "secret")
    assert given["POSTGRES_PASSWORD_FILE"] == f"{mount['mountPath']}/POSTGRES_PASSWORD"


def test_the_api_and_its_migration_read_the_config_map_under_its_plain_name() -> None:
    """`make deploy` appends a hash. `kubectl apply -f k8s.yaml` has to work without one.

    An immutable ConfigMap would refuse the second `kubectl apply` after a changed setting.
    """
    config_map = find("ConfigMap")
    assert config_map["metadata"]["name"] == CONFIG_MAP
    assert "immutable" not in config_map
    spec = pods()["api"]["spec"]
    for container in [*spec["initContainers"], *spec["containers"]]:
        assert container["envFrom"] == [{"configMapRef": {"name": CONFIG_MAP}}]


def connections(most: int) -> int:
    """Of `most` pods that serve, the one more of a rollout, and as many that still drain.

    A pod that migrates has one connection and no pool yet: no more than one that serves.
    """
    surge: int = find("Deployment", "api")["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    data = find("ConfigMap")["data"]
    per_pod = int(data.get("WEB_CONCURRENCY", 1)) * (int(data["DATABASE_POOL_SIZE"]) + READINESS)
    return (most + surge + most) * per_pod


def test_all_pods_together_leave_postgresql_connections_to_spare() -> None:
    (database,) = pods()["db"]["spec"]["containers"]
    ((_, limit),) = [arg.split("=") for arg in database["args"] if "max_connections" in arg]
    most = find("HorizontalPodAutoscaler")["spec"]["maxReplicas"]
    assert connections(most) <= int(limit) - RESERVED


def test_the_documented_connections_are_those_of_the_files() -> None:
    page = (PROJECT / "docs" / "kubernetes.md").read_text()
    rows = re.findall(r"^\| ([\d,]+)[^|]*\| ([\d,]+) \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)
    assert len(rows) == 4
    for pods_at_most, documented, directly, pooler in rows:
        needed = connections(number(pods_at_most))
        assert number(documented) == needed
        if limit := re.search(r"max_connections=(\d+)", directly):
            assert needed <= int(limit[1]) - RESERVED
        else:
            instances = {"one": 1, "four": 4}[pooler.partition(",")[0]]
            clients = re.search(r"max_client_conn=(\d+)", pooler)
            assert clients
            assert needed <= instances * int(clients[1])


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_the_url_of_redis_is_its_service() -> None:
    services = {each["metadata"]["name"] for each in DOCUMENTS if each["kind"] == "Service"}
    assert find("ConfigMap")["data"]["REDIS_URL"] == "redis://redis:6379/0"
    assert "redis" in services
