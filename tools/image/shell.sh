#!/bin/sh
# Open a shell from the development image in the process and network namespaces of a container of
# the production image, which has no shell: shell.sh IMAGE_NAME [CONTAINER]
# The container's files are in /proc/1/root.
set -eu
name=$1 container=${2:-}

if [ -z "$container" ]; then
    container=$(docker ps --quiet --filter "label=org.opencontainers.image.title=$name" | head -n 1)
fi
if [ -z "$container" ]; then
    echo "No container of $name is running. Start one (make docker-run), or name it: make docker-shell CONTAINER=..." >&2
    exit 1
fi
terminal=
if [ -t 0 ]; then
    terminal=--tty
fi
# shellcheck disable=SC2086 # no argument if there is no terminal
exec docker run --rm --interactive $terminal --cap-drop ALL --security-opt no-new-privileges \
    --pid "container:$container" --network "container:$container" "$name:development" sh
