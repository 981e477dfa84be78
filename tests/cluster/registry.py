"""A registry in the cluster, from which its nodes can pull by `localhost` and a port.

Every container runtime pulls from `localhost` without TLS, so nothing is configured on the nodes.
The port is a NodePort, which kube-proxy opens on the loopback interface of each node.
"""

import json
import os
import re
import subprocess

from tools.checkout import PROJECT, run_command
from tools.cluster.image_loading import load_image
from tools.cluster.kubectl import Kubectl

DOCKERFILE = """
FROM {base_image}
RUN apt-get update && \\
    apt-get install --yes --no-install-recommends docker-registry skopeo && \\
    rm -rf /var/lib/apt/lists/* && \\
    sed -i '/^auth:/,/path:/d' /etc/docker/registry/config.yml
"""
MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {name: registry, labels: {app: registry}}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  containers:
    - name: registry
      image: IMAGE
      imagePullPolicy: Never
      args: [docker-registry, serve, /etc/docker/registry/config.yml]
      env:
        - {name: REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY, value: /tmp/registry}
      readinessProbe: {tcpSocket: {port: 5000}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: registry}
spec:
  type: NodePort
  selector: {app: registry}
  ports: [{port: 5000}]
"""


def build_registry_image(tag: str) -> None:
    """Build an image with Debian's registry, and skopeo to push into it."""
    dockerfile = DOCKERFILE.format(base_image=read_base_image())
    run_command(["docker", "build", "--quiet", "--tag", tag, "-"], input=dockerfile)


def read_base_image() -> str:
    """Return the base image of Dockerfile.dev: Debian with Python, which this machine has."""
    dockerfile = (PROJECT / "Dockerfile.dev").read_text()
    (image,) = re.findall(r"^FROM (\S+)$", dockerfile, re.MULTILINE)
    return str(image)


def start_registry(kubectl: Kubectl, image: str) -> None:
    """Start the registry in the namespace of `kubectl`."""
    load_image(kubectl, image, os.environ.get("IMAGE_LOADER", ""))
    kubectl.run("create", "--filename=-", stdin=MANIFEST.replace("IMAGE", image))
    kubectl.run("wait", "--for=condition=Ready", "pod/registry", "--timeout=60s")


def push_image(kubectl: Kubectl, image: str, repository: str) -> tuple[str, str]:
    """Push an image of the Docker engine. Return its name for the nodes, and its digest."""
    copy = kubectl.command_line("exec", "--stdin", "registry", "--", "skopeo", "copy", "--quiet")
    copy += ["--insecure-policy", "--dest-tls-verify=false", "--digestfile=/dev/stdout"]
    copy += ["docker-archive:/dev/stdin", f"docker://localhost:5000/{repository}:latest"]
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:
        digest = run_command(copy, stdin=save.stdout).strip()
    service = json.loads(kubectl.run("get", "service", "registry", "--output=json"))
    node_port = service["spec"]["ports"][0]["nodePort"]
    return f"localhost:{node_port}/{repository}", digest
