# The proxy, and under `--target models` the local models. What is installed is built in a stage of its own, so that
# no pip, no compiler and no source is left in an image that runs.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/rerank-proxy
COPY pyproject.toml README.md LICENSE ./
COPY es_mappings es_mappings
COPY proxy proxy
RUN pip --python /opt/rerank-proxy/bin/python install --no-cache-dir .

FROM build AS build-models
RUN pip --python /opt/rerank-proxy/bin/python install --no-cache-dir ".[local]"

FROM python:3.11-slim AS bare
RUN pip uninstall --yes --root-user-action=ignore setuptools wheel pip
ENV PATH=/opt/rerank-proxy/bin:$PATH
# A number, so that Kubernetes can see for itself that it is not root.
USER 10001:10001
ENTRYPOINT ["rerank-proxy"]

FROM bare AS models
COPY --from=build-models /opt/rerank-proxy /opt/rerank-proxy
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=3)"]
CMD ["models", "--listen", "0.0.0.0:8080"]

# The last stage is what a plain `docker build .` makes. The settings are mounted: without routes of one's own there
# is nothing to rerank.
FROM bare AS proxy
COPY --from=build /opt/rerank-proxy /opt/rerank-proxy
ENV RERANK_PROXY_CONFIG=/etc/rerank-proxy/config.yaml
ENV RERANK_PROXY_LISTEN=0.0.0.0:9201
EXPOSE 9201
# Whether it listens, and not whether the engine is there: starting the proxy anew brings no engine back.
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s CMD ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 9201), 3)"]
CMD ["serve"]
