#!/bin/sh
# Run the production image until Ctrl-C.
# Usage: run.sh IMAGE_NAME PORT [ENV_FILE]
# With ENV_FILE, the container takes its settings from this file. Without it, the image runs in a
# Compose project with a new PostgreSQL and Redis, which is removed with its data at the end.
set -eu
image_name=$1
port=$2
env_file=${3:-}

case $port in
'' | *[!0-9]*)
    echo "PORT must be a number, not '$port'." >&2
    exit 2
    ;;
esac

if [ -n "$env_file" ]; then
    exec docker run --rm \
        --read-only \
        --tmpfs /tmp \
        --cap-drop ALL \
        --security-opt no-new-privileges \
        --env-file "$env_file" \
        --env PORT=8000 \
        --publish "127.0.0.1:$port:8000" \
        "$image_name:latest"
fi

compose() {
    docker compose --file docker-compose.yml "$@"
}

# The project is named by the environment, not by a flag: if Compose cannot read the file, `down`
# falls back to COMPOSE_PROJECT_NAME, and would remove the volumes of the caller's own project.
COMPOSE_PROJECT_NAME=$image_name-run
API_PORT=$port
POSTGRES_PASSWORD=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
export COMPOSE_PROJECT_NAME API_PORT POSTGRES_PASSWORD

# Longer than the stop_grace_period of the API.
stop_timeout_seconds=45
trap 'compose down --volumes --timeout "$stop_timeout_seconds"' EXIT
trap 'exit 130' INT TERM

compose up --no-build --detach --wait
echo "The API listens on http://127.0.0.1:$port. Press Ctrl-C to stop it and to remove its data."
compose logs --follow --no-log-prefix api
