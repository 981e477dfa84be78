"""k8s.yaml sets existing settings only, and PostgreSQL has enough connections for them."""

import re
from pathlib import Path

import pytest

from fastapi_k8s.settings import Settings
from tests.manifest.conftest import LOCAL, max_connections_of_pods
from tools.checkout import PROJECT
from tools.cluster.manifest import CONFIG_MAP
from tools.cluster.secret import secret_data

PASSWORD = "0123456789abcdef"
RESERVED_CONNECTIONS = 3
"""The default of PostgreSQL's superuser_reserved_connections."""


def test_the_config_map_and_the_secret_are_complete_and_valid_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No setting is unknown, none that is required is missing, and production accepts them."""
    config = LOCAL.find("ConfigMap")["data"]
    secrets = read_mounted_secrets()
    names = {name.lower() for name in [*config, *secrets]}
    assert names <= Settings.model_fields.keys()
    for name, value in config.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ENVIRONMENT", "production")
    for name, value in secrets.items():
        (tmp_path / name).write_text(value)
    settings = Settings(_env_file=None, _secrets_dir=tmp_path)
    assert settings.model_fields_set == names | {"environment"}


def read_mounted_secrets() -> dict[str, str]:
    """Return the files in the API's secret volume, with their contents."""
    data = secret_data(PASSWORD)
    for volume in LOCAL.pod_templates()["api"]["spec"]["volumes"]:
        if volume["name"] == "secret":
            return {item["path"]: data[item["key"]] for item in volume["secret"]["items"]}
    raise LookupError("volume secret")


def test_every_key_of_the_secret_is_mounted_and_every_mounted_key_exists() -> None:
    mounted_keys = set()
    for template in LOCAL.pod_templates().values():
        for volume in template["spec"]["volumes"]:
            if "secret" in volume:
                secret_name = volume["secret"]["secretName"]
                for item in volume["secret"]["items"]:
                    mounted_keys.add((secret_name, item["key"]))
    assert mounted_keys == {("fastapi-k8s", key) for key in secret_data(PASSWORD)}


def test_postgresql_has_the_user_and_the_database_of_the_url() -> None:
    (container,) = LOCAL.pod_templates()["db"]["spec"]["containers"]
    env = {each["name"]: each["value"] for each in container["env"]}
    url = f"postgresql://{env['POSTGRES_USER']}:{PASSWORD}@db:5432/{env['POSTGRES_DB']}"
    assert secret_data(PASSWORD)["DATABASE_URL"] == url
    mount_paths = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert env["POSTGRES_PASSWORD_FILE"] == f"{mount_paths['secret']}/POSTGRES_PASSWORD"


def test_the_api_and_its_migration_read_the_config_map_under_its_plain_name() -> None:
    """`make deploy` appends a hash. `kubectl apply -f k8s.yaml` has to work without one.

    An immutable ConfigMap would refuse the second `kubectl apply` after a changed setting.
    """
    config_map = LOCAL.find("ConfigMap")
    assert config_map["metadata"]["name"] == CONFIG_MAP
    assert "immutable" not in config_map
    for container in LOCAL.api_containers():
        assert container["envFrom"] == [{"configMapRef": {"name": CONFIG_MAP}}]


def test_postgresql_has_enough_connections_for_all_pods() -> None:
    (container,) = LOCAL.pod_templates()["db"]["spec"]["containers"]
    (argument,) = (each for each in container["args"] if each.startswith("max_connections="))
    limit = int(argument.partition("=")[2])
    max_replicas = LOCAL.find("HorizontalPodAutoscaler")["spec"]["maxReplicas"]
    assert max_connections_of_pods(LOCAL, max_replicas) <= limit - RESERVED_CONNECTIONS


def test_the_table_in_kubernetes_md_has_the_computed_numbers_of_connections() -> None:
    page = (PROJECT / "docs" / "kubernetes.md").read_text()
    rows = re.findall(r"^\| ([\d,]+)[^|]*\| ([\d,]+) \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)
    assert len(rows) == 4
    for max_replicas, documented, direct, pooler in rows:
        connections = max_connections_of_pods(LOCAL, parse_number(max_replicas))
        assert parse_number(documented) == connections
        limit = re.search(r"max_connections=(\d+)", direct)
        if limit:
            assert connections <= int(limit[1]) - RESERVED_CONNECTIONS
        else:
            instances = {"one": 1, "four": 4}[pooler.partition(",")[0]]
            clients_per_instance = re.search(r"max_client_conn=(\d+)", pooler)
            assert clients_per_instance
            assert connections <= instances * int(clients_per_instance[1])


def parse_number(text: str) -> int:
    """Return a number that is written with commas, such as 1,206."""
    return int(text.replace(",", ""))


def test_the_redis_url_is_the_address_of_its_service() -> None:
    services = {each["metadata"]["name"] for each in LOCAL.find_all("Service")}
    assert LOCAL.find("ConfigMap")["data"]["REDIS_URL"] == "redis://redis:6379/0"
    assert "redis" in services
