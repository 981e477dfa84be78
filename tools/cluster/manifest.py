"""k8s.yaml: its ConfigMap's name, and what of it is for one namespace and one image."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory

import yaml

from fastapi_k8s import NAME

from .kubectl import run

MANIFEST = Path("k8s.yaml")


def config_name(old: str, data: Mapping[str, str]) -> str:
    """The name of a ConfigMap: what stands before the last hyphen, and a hash of its data."""
    digest = sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    return f"{old.rpartition('-')[0]}-{digest[:10]}"


def name_config(manifest: Path = MANIFEST) -> str:
    """Name the manifest's ConfigMap by its data, wherever the name stands, and tell the name."""
    text = manifest.read_text(encoding="utf-8")
    (config,) = (each for each in yaml.safe_load_all(text) if each["kind"] == "ConfigMap")
    old = config["metadata"]["name"]
    new = config_name(old, config["data"])
    if new != old:
        manifest.write_text(text.replace(old, new), encoding="utf-8")
    print(f"{manifest.name}: the settings are in ConfigMap {new}")
    return new


def render(namespace: str, image: str, manifest: Path = MANIFEST) -> str:
    """The manifest for a namespace, with `image` (name:tag) as the service's."""
    name, _, tag = image.rpartition(":")
    overlay = {
        "namespace": namespace,
        "resources": ["k8s.yaml"],
        "images": [{"name": NAME, "newName": name, "newTag": tag}],
    }
    with TemporaryDirectory() as folder:
        copy(manifest, Path(folder, "k8s.yaml"))
        Path(folder, "kustomization.yaml").write_text(json.dumps(overlay), encoding="utf-8")
        return run("kubectl", "kustomize", folder)


if __name__ == "__main__":
    name_config()
