"""Render k8s.yaml with kustomize for one namespace and one image. No tracked file is written."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from fastapi_k8s import NAME

from .kubectl import ClusterError, KubernetesObject, run

CONFIG_MAP = "api"
HASH_DIGITS = 10


def render(namespace: str, image: str, project: Path = Path()) -> list[KubernetesObject]:
    """Return the objects of the project's kustomization.yaml, with the Namespace first.

    They are in `namespace`, run `image` (`name:tag`) and read their settings from a ConfigMap
    whose name ends in a hash of its data. Raises ClusterError if kustomize fails.
    """
    base = run("kubectl", "kustomize", str(project))
    config_map = _find_config_map(base)
    overlay = build_overlay(namespace, image, config_map["data"])
    with TemporaryDirectory() as folder:
        Path(folder, "base.yaml").write_text(base, encoding="utf-8")
        Path(folder, "kustomization.yaml").write_text(json.dumps(overlay), encoding="utf-8")
        output = run("kubectl", "kustomize", folder)
    namespaces: list[KubernetesObject] = []
    other_objects: list[KubernetesObject] = []
    for kubernetes_object in yaml.safe_load_all(output):
        if kubernetes_object["kind"] == "Namespace":
            namespaces.append(kubernetes_object)
        else:
            other_objects.append(kubernetes_object)
    return [*namespaces, *other_objects]


def build_overlay(namespace: str, image: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """Return the kustomization for base.yaml.

    kustomize adds hashes only to ConfigMaps that it generates, so the overlay renames the
    ConfigMap. kustomize then updates every reference to the name. Without another name, changed
    settings would not change the Deployment: the pods would keep the old values, and a rollback
    would find the new ones.
    """
    image_name, _, tag = image.rpartition(":")
    new_name = f"{CONFIG_MAP}-{hash_settings(settings)}"
    rename = [
        {"op": "replace", "path": "/metadata/name", "value": new_name},
        {"op": "add", "path": "/immutable", "value": True},
    ]
    return {
        "namespace": namespace,
        "resources": ["base.yaml"],
        "images": [{"name": NAME, "newName": image_name, "newTag": tag}],
        "patches": [
            {
                "target": {"kind": "ConfigMap", "name": CONFIG_MAP},
                "patch": json.dumps(rename),
                "options": {"allowNameChange": True},
            }
        ],
    }


def hash_settings(settings: Mapping[str, str]) -> str:
    """Return a hash that does not depend on the order of the settings."""
    canonical = json.dumps(settings, sort_keys=True)
    return sha256(canonical.encode()).hexdigest()[:HASH_DIGITS]


def to_json(objects: list[KubernetesObject]) -> str:
    """Return the objects as one List, for `kubectl apply --filename=-`."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def _find_config_map(manifest: str) -> KubernetesObject:
    for kubernetes_object in yaml.safe_load_all(manifest):
        is_config_map = kubernetes_object["kind"] == "ConfigMap"
        if is_config_map and kubernetes_object["metadata"]["name"] == CONFIG_MAP:
            return dict(kubernetes_object)
    raise ClusterError(f"There is no ConfigMap {CONFIG_MAP} in the files of kustomization.yaml.")
