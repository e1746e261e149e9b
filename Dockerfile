# syntax=docker/dockerfile:1
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY splitproxy ./splitproxy
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist . \
 && python -m venv /opt/splitproxy \
 && /opt/splitproxy/bin/pip install --no-cache-dir --only-binary :all: /dist/*.whl

FROM python:3.13-slim
LABEL org.opencontainers.image.title="splitproxy" \
      org.opencontainers.image.description="A traffic-splitting reverse proxy" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/splitproxy /opt/splitproxy
# The state of rollouts goes to a volume, else a new container would begin without a memory. Nothing else is written: the
# root file system may be read-only.
RUN install -d -o 10001 -g 10001 /var/lib/splitproxy
VOLUME /var/lib/splitproxy
ENV PATH=/opt/splitproxy/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 STATE_DIRECTORY=/var/lib/splitproxy
# A number, so that Kubernetes' runAsNonRoot can tell.
USER 10001:10001
WORKDIR /etc/splitproxy
STOPSIGNAL SIGTERM
EXPOSE 8080
# The admin API of config/*.yaml; where the file names another address, SPLITPROXY_ADMIN has to name it too.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import os, sys, urllib.request as r; url = os.environ.get('SPLITPROXY_ADMIN') or 'http://127.0.0.1:9900'; sys.exit(r.urlopen(url.rstrip('/') + '/healthz', timeout=2).status != 200)"]
ENTRYPOINT ["splitproxy"]
CMD ["run", "-c", "/etc/splitproxy"]
