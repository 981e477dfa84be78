#!/bin/sh
# Open a shell from the development image in the process and network namespaces of a running
# container of the production image, which has no shell. Its files are in /proc/1/root.
# Usage: shell.sh IMAGE_NAME [CONTAINER] (without CONTAINER: the newest running container)
set -eu
image_name=$1
container=${2:-}

if [ -z "$container" ]; then
    container=$(docker ps --quiet --filter "label=org.opencontainers.image.title=$image_name" | head -n 1)
fi
if [ -z "$container" ]; then
    echo "No container of $image_name is running. Start one (make docker-run), or name it: make docker-shell CONTAINER=..." >&2
    exit 1
fi
terminal=
if [ -t 0 ]; then
    terminal=--tty
fi
# shellcheck disable=SC2086 # no argument if there is no terminal
exec docker run --rm --interactive $terminal --cap-drop ALL --security-opt no-new-privileges \
    --pid "container:$container" --network "container:$container" "$image_name:development" sh
