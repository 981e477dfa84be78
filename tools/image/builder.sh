#!/bin/sh
# Say how to get a builder for PLATFORMS (separated by commas) and attestations, if there is none: builder.sh PLATFORMS
set -eu

found=$(docker buildx inspect --bootstrap)
case $found in
*"Driver:"*" docker
"*)
    if ! docker info --format '{{.DriverStatus}}' | grep -q io.containerd.snapshotter; then
        echo 'The engine itself builds for one architecture, without attestations. Either switch its containerd image' >&2
        echo 'store on (https://docs.docker.com/engine/storage/containerd/), or make a builder and try again:' >&2
        echo '    docker buildx create --use --driver docker-container' >&2
        exit 1
    fi
    ;;
esac
for platform in $(echo "$1" | tr , ' '); do
    case $found in
    *"$platform"*) ;;
    *)
        echo "The builder cannot build for $platform. Install its emulator and try again:" >&2
        echo "    docker run --privileged --rm tonistiigi/binfmt --install ${platform#linux/}" >&2
        exit 1
        ;;
    esac
done
