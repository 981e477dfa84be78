"""A PostgreSQL with TLS in another namespace than the application."""

import json

import trustme

from tools.cluster.kubectl import Kubectl

PASSWORD = "0123456789abcdef"
MANIFEST = """
apiVersion: v1
kind: Service
metadata: {name: postgresql}
spec:
  clusterIP: None
  selector: {app: postgresql}
  ports: [{port: 5432}]
---
apiVersion: v1
kind: Pod
metadata: {name: postgresql, labels: {app: postgresql}}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 70, runAsGroup: 70, fsGroup: 70}
  containers:
    - name: postgresql
      image: IMAGE
      imagePullPolicy: IfNotPresent
      args: [-c, ssl=on, -c, ssl_cert_file=/tls/tls.crt, -c, ssl_key_file=/tls/tls.key]
      env:
        - {name: POSTGRES_DB, value: app}
        - {name: POSTGRES_USER, value: app}
        - {name: POSTGRES_PASSWORD, valueFrom: {secretKeyRef: {name: postgresql, key: password}}}
      readinessProbe:
        exec: {command: [pg_isready, -q, -h, 127.0.0.1, -U, app, -d, app]}
        periodSeconds: 1
      volumeMounts:
        - {name: data, mountPath: /var/lib/postgresql}
        - {name: tls, mountPath: /tls}
  volumes:
    - {name: data, emptyDir: {}}
    - {name: tls, secret: {secretName: postgresql, defaultMode: 0640}}
"""


def start_postgresql(kubectl: Kubectl, image: str) -> dict[str, str]:
    """Start PostgreSQL in the namespace of `kubectl`.

    Return the contents of a Secret with the URL and the certificate authority.
    """
    host = f"postgresql.{kubectl.namespace}.svc"
    authority = trustme.CA()
    certificate = authority.issue_cert(host)
    (chain,) = certificate.cert_chain_pems
    server_secret = {
        "password": PASSWORD,
        "tls.crt": chain.bytes().decode(),
        "tls.key": certificate.private_key_pem.bytes().decode(),
    }
    create_secret(kubectl, "postgresql", server_secret)
    kubectl.run("create", "--filename=-", stdin=MANIFEST.replace("IMAGE", image))
    kubectl.run("wait", "--for=condition=Ready", "pod/postgresql", "--timeout=90s")
    options = "sslmode=verify-full&sslrootcert=/run/secrets/database-ca.crt"
    return {
        "DATABASE_URL": f"postgresql://app:{PASSWORD}@{host}:5432/app?{options}",
        "database-ca.crt": authority.cert_pem.bytes().decode(),
    }


def create_secret(kubectl: Kubectl, name: str, data: dict[str, str]) -> None:
    """Create a Secret in the namespace of `kubectl`."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": data,
    }
    kubectl.run("create", "--filename=-", stdin=json.dumps(secret))
