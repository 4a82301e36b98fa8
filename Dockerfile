# One image for every role: docker build --tag dunning .
# The tags name what was looked at; where your registry lets you, pin them by digest too (docs/deploying.md).

FROM python:3.13.14-slim-bookworm AS build
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE celeryconfig.py ./
COPY schedules schedules
COPY worker worker
RUN pip wheel --no-cache-dir --constraint constraints.txt --wheel-dir /wheels '.[otel]'

FROM python:3.13.14-slim-bookworm
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index /wheels/*.whl \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/dunning dunning
ENV PYTHONUNBUFFERED=1 DUNNING_HOME=/var/lib/dunning
USER 10001
WORKDIR /var/lib/dunning
ENTRYPOINT ["dunning"]
