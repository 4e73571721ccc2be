# The proxy, and with `--target models` the local models. Packages are installed in a stage of their own, so that the
# final images contain no pip, no compiler and no sources.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/rerank-proxy
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY es_mappings es_mappings
COPY proxy proxy
RUN pip --python /opt/rerank-proxy/bin/python install --no-cache-dir -c constraints.txt ".[redis]"

FROM build AS build-models
RUN pip --python /opt/rerank-proxy/bin/python install --no-cache-dir -c constraints.txt ".[local]"

FROM python:3.13-slim AS bare
RUN pip uninstall --yes --root-user-action=ignore pip
ENV PATH=/opt/rerank-proxy/bin:$PATH
# A number: Kubernetes' runAsNonRoot cannot check a name.
USER 10001:10001
ENTRYPOINT ["rerank-proxy"]

FROM bare AS models
COPY --from=build-models /opt/rerank-proxy /opt/rerank-proxy
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=3)"]
CMD ["models", "--listen", "0.0.0.0:8080"]

# The last stage is what a plain `docker build .` makes. The image contains no settings: mount a config.yaml with routes.
FROM bare AS proxy
COPY --from=build /opt/rerank-proxy /opt/rerank-proxy
ENV RERANK_PROXY_CONFIG=/etc/rerank-proxy/config.yaml
ENV RERANK_PROXY_LISTEN=0.0.0.0:9201
EXPOSE 9201
# Checks only that the proxy listens: restarting it would not bring an unreachable engine back.
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s CMD ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 9201), 3)"]
CMD ["serve"]
