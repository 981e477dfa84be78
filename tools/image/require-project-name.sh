#!/bin/sh
# Fail with a message if Compose cannot name its project after this folder.
# Usage: require-project-name.sh IMAGE_NAME
set -eu
image_name=$1

# The exit code is not checked: the command that follows reports every other error.
errors=$(docker compose config --quiet 2>&1) || true
case $errors in
*'project name must not be empty'*)
    echo 'Compose names the stack after this folder, whose name has no letter from a to z and no digit.' >&2
    echo "Choose a name, in .env or in the environment: COMPOSE_PROJECT_NAME=$image_name" >&2
    exit 1
    ;;
esac
