#!/bin/sh
# Fail with a message unless Docker is installed and running, with its Compose plugin.
set -eu

fail() {
    echo "$1" >&2
    exit 1
}

if ! command -v docker >/dev/null; then
    fail 'Docker is not installed: https://docs.docker.com/get-started/get-docker/ ("make run" works without Docker.)'
fi
if ! docker info >/dev/null 2>&1; then
    fail 'Docker is not running, or you may not use it. Start Docker Desktop or the service (sudo systemctl start docker), then check: docker info'
fi
if ! docker compose version >/dev/null 2>&1; then
    fail 'The Docker plugin "compose" is not installed: https://docs.docker.com/compose/install/'
fi
