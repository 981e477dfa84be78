#!/bin/sh
# Check that `docker buildx` can build for several platforms, with attestations.
# Usage: builder.sh PLATFORMS (separated by commas)
# If it cannot, print how to set that up and exit with code 1: otherwise the build would fail with
# a message that names neither the cause nor the command.
set -eu
platforms=$1

builder=$(docker buildx inspect --bootstrap)
driver=$(echo "$builder" | sed -n 's/^Driver: *//p')

if [ "$driver" = docker ]; then
    if ! docker info --format '{{.DriverStatus}}' | grep -q io.containerd.snapshotter; then
        echo 'The default builder of this Docker engine builds for one platform, without attestations.' >&2
        echo 'Enable the containerd image store (https://docs.docker.com/engine/storage/containerd/),' >&2
        echo 'or create a builder and try again:' >&2
        echo '    docker buildx create --use --driver docker-container' >&2
        exit 1
    fi
fi

for platform in $(echo "$platforms" | tr , ' '); do
    case $builder in
    *"$platform"*) ;;
    *)
        echo "The builder cannot build for $platform. Install its emulator and try again:" >&2
        echo "    docker run --privileged --rm tonistiigi/binfmt --install ${platform#linux/}" >&2
        exit 1
        ;;
    esac
done
