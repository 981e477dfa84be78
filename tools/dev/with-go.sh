#!/bin/sh
# Run a linter that Go builds, and print its output if it fails: with-go.sh NAME COMMAND...
# Without Go the linter is skipped, but CI=true makes that a failure.
set -eu
name=$1
shift

if ! command -v go >/dev/null; then
    echo "$name was skipped, because Go is not installed: https://go.dev/doc/install" >&2
    if [ "${CI:-}" = true ]; then
        exit 1
    fi
    exit 0
fi
if ! output=$("$@" 2>&1); then
    echo "$output" >&2
    exit 1
fi
