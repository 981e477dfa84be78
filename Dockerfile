# The production image, and with `--target development` an image to debug it. docs/dockerfile.md explains each line.
FROM ghcr.io/astral-sh/uv:0.13.8 AS uv

FROM python:3.14.8-slim-trixie AS base
ENV LANG=C.UTF-8 \
    PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
WORKDIR /app


FROM base AS dependencies
# The extras of pyproject.toml to install, separated by spaces: EXTRAS="auth telemetry"
ARG EXTRAS=
# Without PYC_INVALIDATION_MODE, PYTHONHASHSEED and SOURCE_DATE_EPOCH, bytecode contains times and random orders,
# and two builds of one commit differ.
ENV PYC_INVALIDATION_MODE=UNCHECKED_HASH \
    PYTHONHASHSEED=0 \
    SOURCE_DATE_EPOCH=0 \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_DEV=1 \
    UV_PYTHON_DOWNLOADS=never
# No version is pinned, because Debian deletes superseded versions.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install -y --no-install-recommends binutils && \
    rm -rf /var/lib/apt/lists/*
RUN --mount=from=uv,source=/uv,target=/usr/local/bin/uv \
    --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=netrc,target=/root/.netrc \
    --mount=type=secret,id=ca-bundle,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=bind,source=pyproject.toml,target=pyproject.toml \
    --mount=type=bind,source=uv.lock,target=uv.lock \
    --mount=type=bind,source=tools/image/strip.py,target=/image/strip.py \
    --mount=type=bind,source=tools/image/elf.py,target=/image/tools/image/elf.py \
    for extra in ${EXTRAS}; do set -- "$@" --extra "$extra"; done && \
    uv sync --locked --no-dev --no-install-project "$@" && \
    python /image/strip.py .venv && \
    # Every user may write this file.
    rm .venv/.lock

FROM dependencies AS runtime
RUN --mount=type=bind,source=tools/image/runtime.py,target=/image/runtime.py \
    --mount=type=bind,source=tools/image/elf.py,target=/image/tools/image/elf.py \
    /usr/local/bin/python /image/runtime.py .venv /runtime

FROM dependencies AS build
RUN --mount=from=uv,source=/uv,target=/usr/local/bin/uv \
    --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=netrc,target=/root/.netrc \
    --mount=type=secret,id=ca-bundle,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=bind,source=pyproject.toml,target=pyproject.toml \
    --mount=type=bind,source=uv.lock,target=uv.lock \
    --mount=type=bind,source=README.md,target=README.md \
    --mount=type=bind,source=LICENSE,target=LICENSE \
    --mount=type=bind,source=src,target=src \
    touch /tmp/build-start && \
    for extra in ${EXTRAS}; do set -- "$@" --extra "$extra"; done && \
    # Without --reinstall-package, uv would install the cached wheel of the source before the edit:
    # its cache key is pyproject.toml alone.
    UV_COMPILE_BYTECODE=0 uv sync --locked --no-dev --no-editable --reinstall-package fastapi-k8s "$@" && \
    python -m compileall -q --invalidation-mode unchecked-hash .venv/lib/python*/site-packages/fastapi_k8s && \
    uv pip check && \
    # Every user may write .lock, and uv_cache.json contains the time of the build.
    dist_info=$(echo .venv/lib/python*/site-packages/fastapi_k8s-*.dist-info) && \
    rm .venv/.lock "$dist_info/uv_cache.json" && \
    sed -i '/uv_cache.json/d' "$dist_info/RECORD" && \
    # Only the files of the project become the top layer of the image: if an edit changed the whole environment,
    # each registry and node would load tens of megabytes instead of kilobytes.
    mkdir /project && \
    find .venv -newer /tmp/build-start -type f -exec cp --parents --target-directory=/project {} +

FROM build AS development
# --chmod: in a clone that was made with umask 077, only the owner may read the files.
COPY --chmod=644 pyproject.toml uv.lock README.md LICENSE ./
COPY --chmod=755 src src
RUN --mount=from=uv,source=/uv,target=/usr/local/bin/uv \
    --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=netrc,target=/root/.netrc \
    --mount=type=secret,id=ca-bundle,target=/etc/ssl/certs/ca-certificates.crt \
    for extra in ${EXTRAS}; do set -- "$@" --extra "$extra"; done && \
    uv sync --locked --no-dev --group debug "$@"
COPY --chmod=644 tools/dev/reload.py tools/dev/
USER 10001:10001
EXPOSE 8000
CMD ["python", "-m", "tools.dev.reload"]


FROM scratch AS production
ENV ENVIRONMENT=production \
    LANG=C.UTF-8 \
    PATH=/app/.venv/bin:/usr/local/bin \
    PORT=8000 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
WORKDIR /app
# In the order of how often they change, the least first: an edit invalidates only the layers after it.
COPY --from=runtime /runtime /
COPY --from=dependencies /app/.venv .venv
COPY --from=build /project .
# --chmod: in a clone that was made with umask 077, only the owner may read the file.
COPY --chmod=644 tools/image/healthcheck.py .
# Without this check, a missing module or library would first show in a running container.
RUN --mount=type=bind,source=tools/image/verify.py,target=/tmp/verify.py \
    --mount=type=bind,source=tools/image/elf.py,target=/tmp/tools/image/elf.py \
    ["python", "/tmp/verify.py"]
# A number, because Kubernetes cannot verify `runAsNonRoot` for a name.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=3s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["python", "-IS", "/app/healthcheck.py"]
CMD ["gunicorn", "-c", "python:fastapi_k8s.server"]
# These arguments change with every commit. Before the COPY instructions they would invalidate every layer.
ARG APP_VERSION=
ARG GIT_SHA=unknown
ARG CREATED=
ARG SOURCE=
ENV APP_VERSION=${APP_VERSION} \
    GIT_SHA=${GIT_SHA}
LABEL org.opencontainers.image.title="fastapi-k8s" \
      org.opencontainers.image.description="A small FastAPI service on PostgreSQL and Redis" \
      org.opencontainers.image.version="${APP_VERSION}" \
      org.opencontainers.image.revision="${GIT_SHA}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.licenses="MIT"
