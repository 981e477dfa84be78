"""A deployment of this checkout on a cluster, in a namespace of its own, and a client beside it."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from fastapi_k8s import NAME
from tests.checkout import PROJECT, copy_checkout, inherited, output
from tools.benchmarks import load_generator as load
from tools.cluster.kubectl import Kubectl
from tools.cluster.rollout import deployed_image

CLIENTS, PAUSE = 60, 0.04
"""At most 1,500 requests/s; about half of that on two cores that run the cluster too."""
LOAD_PROGRAM = Path(load.__file__).read_text()
ASK = """
import json, sys, urllib.error, urllib.request
method, url, body, timeout = sys.argv[1:]
headers = {"Content-Type": "application/json"}
request = urllib.request.Request(url, body.encode() or None, headers, method=method)
try:
    with urllib.request.urlopen(request, timeout=float(timeout)) as answer:
        print(json.dumps([answer.status, answer.read().decode()]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, error.read().decode()]))
except OSError as error:
    print(json.dumps([0, repr(error)]))
"""


@dataclass
class Watched:
    """The load generator, which runs in the client."""

    process: subprocess.Popen[str]

    def seen(self) -> load.Load:
        """What became of the requests so far."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.told()

    def told(self) -> load.Load:
        """The next line that the program prints."""
        assert self.process.stdout
        told = json.loads(self.process.stdout.readline())
        failures = [load.Failure(**failure) for failure in told.pop("failures")]
        return load.Load(failures=failures, **told)


@dataclass(frozen=True)
class Place:
    """Runs make targets in a copy of the checkout, and requests from a pod in another namespace.

    `image` is the name of its images, `kubectl` has the namespace of the deployment, `client` the
    other one.
    """

    image: str
    checkout: Path
    kubectl: Kubectl
    client: Kubectl

    @property
    def url(self) -> str:
        """The Service's own address."""
        return f"http://{self.kubectl.get_existing('service', 'api')['spec']['clusterIP']}"

    def make(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run make with this place's variables; `given` is its standard input."""
        place = {"CONTEXT": self.kubectl.context, "NAMESPACE": self.kubectl.namespace}
        variables = {**place, "IMAGE_NAME": self.image}
        keep = ("KUBECONFIG", "IMAGE_LOADER")
        environment = {
            **{name: os.environ[name] for name in keep if name in os.environ},
            **inherited(),
            "UV_NO_SYNC": "1",  # the environment is the original checkout's
        }
        return subprocess.run(
            ["make", *arguments, *(f"{name}={value}" for name, value in variables.items())],
            cwd=self.checkout,
            env=environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )

    def done(self, *arguments: str, given: str = "") -> str:
        """What a make target prints, which has to succeed."""
        made = self.make(*arguments, given=given)
        assert made.returncode == 0, made.stdout + made.stderr
        return made.stdout

    def build(self, commit: str) -> str:
        """Build an image that reports `commit`, as `latest`. Its id."""
        self.done("docker-build", f"GIT_SHA={commit}")
        latest = f"{self.image}:latest"
        return output(["docker", "image", "inspect", "--format={{.Id}}", latest]).strip()

    @contextmanager
    def edited(self, name: str, old: str, new: str) -> Iterator[None]:
        """A file of the copy with one change, or a new one, while the block runs."""
        file = self.checkout / name
        before = file.read_text() if old else None
        if before is not None:
            assert before.count(old) == 1
        file.write_text(new if before is None else before.replace(old, new))
        try:
            yield
        finally:
            if before is None:
                file.unlink()
            else:
                file.write_text(before)

    def names(self) -> list[str]:
        """The service's pods."""
        return [pod["metadata"]["name"] for pod in self.kubectl.list_pods()]

    def ready(self) -> int:
        """How many of them are ready."""
        found: int = self.kubectl.get_deployed()["status"].get("readyReplicas", 0)
        return found

    def autoscale(self, least: int, most: int) -> None:
        """Set the autoscaler's bounds."""
        patch = json.dumps({"spec": {"minReplicas": least, "maxReplicas": most}})
        self.kubectl.run("patch", "hpa", "api", f"--patch={patch}")

    def commits(self) -> set[str]:
        """The commits that the pods report, each asked by its own address, if they answer."""
        addresses = [pod["status"].get("podIP") for pod in self.kubectl.list_pods()]
        answers = [self.request("GET", f"http://{ip}:8000/version") for ip in addresses if ip]
        return {json.loads(body)["commit"] for status, body in answers if status}

    def start_client(self) -> None:
        """Start the pod that requests come from: any other of the cluster, with Python."""
        self.client.run("create", "namespace", self.client.namespace)
        self.start_pod(self.client, "client", deployed_image(self.kubectl))

    def start_pod(self, kubectl: Kubectl, name: str, image: str) -> None:
        """Start a pod that does nothing, by which others run programs."""
        confined = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        container = {
            "name": name,
            "image": image,
            "imagePullPolicy": "Never",
            "args": ["python", "-c", "import signal; signal.sigwait([signal.SIGTERM])"],
            "securityContext": confined,
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": [container], "automountServiceAccountToken": False},
        }
        kubectl.run("create", "--filename=-", stdin=json.dumps(pod))
        kubectl.run("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")

    def python(self, program: str, *arguments: str) -> str:
        """What a program prints that runs in the client."""
        return self.client.run("exec", "client", "--", "python", "-c", program, *arguments)

    def ask(self, method: str, path: str, body: str = "", timeout: float = 10) -> tuple[int, str]:
        """A request to the Service from the client: status (0 for no answer), and body."""
        return self.request(method, self.url + path, body, timeout)

    def add_item(self) -> str:  # example
        """The path of a new item."""
        _, item = self.ask("POST", "/items", '{"name": "Lamp"}')
        return f"/items/{json.loads(item)['id']}"

    def request(
        self, method: str, url: str, body: str = "", timeout: float = 10
    ) -> tuple[int, str]:
        """A request from the client to anything."""
        status, text = json.loads(self.python(ASK, method, url, body, str(timeout)))
        return status, text

    def remove(self) -> None:
        """Remove the namespaces, those of other deployments from here too, and the images."""
        names = [each["metadata"]["name"] for each in self.kubectl.get_all("namespaces")]
        if ours := [name for name in names if name.startswith(self.image)]:
            self.kubectl.run("delete", "namespace", *ours, "--timeout=120s")
        tags = "--format={{.Repository}}:{{.Tag}}"  # by its id, it would go under other names too
        if made := output(["docker", "image", "ls", tags, self.image]).split():
            output(["docker", "image", "rm", *made])

    @contextmanager
    def load(
        self, path: str = "/version", clients: int = CLIENTS, pause: float = PAUSE
    ) -> Iterator[Watched]:
        """Load from the client, half on kept-alive connections, while the block runs."""
        arguments = [LOAD_PROGRAM, self.url + path, str(clients), str(pause)]
        command = ["exec", "--stdin", "client", "--", "python", "-c", *arguments]
        with subprocess.Popen(
            self.client.command_line(*command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            watched = Watched(process)
            watched.told()
            yield watched
            # Leaving closes its standard input, by which it ends.
        assert process.returncode == 0, "a client of the load failed"


@contextmanager
def place(context: str) -> Iterator[Place]:
    """A place that is removed at the end, with its namespaces and images."""
    name = f"{NAME}-test-{uuid4().hex[:8]}"
    with TemporaryDirectory() as folder:
        checkout = copy_checkout(Path(folder))
        (checkout / ".venv").symlink_to(PROJECT / ".venv")
        here = Place(name, checkout, Kubectl(context, name), Kubectl(context, f"{name}-client"))
        try:
            yield here
        finally:
            here.remove()
