# One image for workers, beat and Flower: the command decides which it is.
# Plain Dockerfile syntax, so that any builder can build it.
ARG PYTHON_IMAGE=python:3.13-slim


FROM ${PYTHON_IMAGE} AS build

# For networks with a package index of their own. Empty is as good as not given. They are known in this
# stage only, and it is not part of the image.
ARG PIP_INDEX_URL=
ARG PIP_EXTRA_INDEX_URL=
ARG PIP_TRUSTED_HOST=
# Which drivers the image has: those of the compose files, unless told otherwise.
ARG EXTRAS=redis,postgresql,flower

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

RUN python -m venv --without-pip /venv

# First what we depend on, for a package of our name that is empty: this layer stays until
# pyproject.toml or constraints.txt changes, and a change of our code costs a second, not a minute.
WORKDIR /dependencies
COPY pyproject.toml constraints.txt ./
RUN touch README.md LICENSE && mkdir broker_profiles && touch broker_profiles/__init__.py \
 && pip --python /venv/bin/python install --constraint constraints.txt ".[${EXTRAS}]"

# In another folder, for setuptools would prefer the empty, younger files of a build before.
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY broker_profiles broker_profiles
RUN pip wheel --no-deps --wheel-dir /wheels . \
 && pip --python /venv/bin/python install --no-deps --force-reinstall /wheels/*.whl

# Readable for the worker's user whatever the umask of the clone, and compiled ahead of time, as nothing can
# be written there later.
WORKDIR /app
COPY config config
COPY tasks tasks
RUN chmod -R a+rX . && python -m compileall -q .


FROM ${PYTHON_IMAGE}

LABEL org.opencontainers.image.title="broker-profiles" \
      org.opencontainers.image.licenses="Apache-2.0"

# A user without a shell or a home. beat's schedule has the only folder it can write, and a new named
# volume takes over its owner.
RUN groupadd --system --gid 10001 celery \
 && useradd --system --uid 10001 --gid celery --no-create-home --home-dir /app \
            --shell /usr/sbin/nologin celery \
 && install -d -o celery -g celery /var/lib/celery

# PYTHONPATH: `tasks` and `config` are found by every command, from every folder.
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

WORKDIR /app
COPY --from=build /venv /venv
COPY --from=build /app /app

# By number: Kubernetes cannot tell from a name that it is not root.
USER 10001:10001

STOPSIGNAL SIGTERM

# The worker touches this file with each of its heartbeats (config/compose/health.py), so looking at its
# age costs 20 ms of a core, most of it the engine's. `celery inspect ping` starts a whole Celery: 600 ms.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=2 \
    CMD test -n "$(find /tmp/alive -mmin -1)"

CMD ["celery", "-A", "tasks", "worker", "--loglevel=info", "--include=config.compose.health"]
