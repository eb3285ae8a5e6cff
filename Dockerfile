# A gateway that needs no privileges: http_proxy and mapping are ordinary listening sockets.
#
#   docker build -t tng-gateway .
#   docker run --rm --network=host tng-gateway tng launch --config-content '{...}'
#
# HEALTHCHECK asks the control interface, so the configuration needs
#   "control_interface": {"restful": {"host": "127.0.0.1", "port": 50000}}
# or TNG_READYZ names where it is instead.

FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY tng ./tng
# The lock holds more than a gateway needs; as constraints it pins what is installed.
RUN python -m venv /opt/tng \
    && /opt/tng/bin/pip install --no-cache-dir --constraint requirements.lock .

FROM python:3.13-slim-bookworm
COPY --from=build /opt/tng /opt/tng
ENV PATH=/opt/tng/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TNG_READYZ=http://127.0.0.1:50000/readyz
USER 65532:65532
EXPOSE 41000
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(os.environ['TNG_READYZ'], timeout=2)"]
CMD ["tng", "launch", "--config-file", "/etc/tng/config.json"]
