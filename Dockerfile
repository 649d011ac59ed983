# topgb serve on a CPU, not as root:
#   docker build -t topgb .
#   docker run --rm -p 127.0.0.1:8000:8000 -e TOPGB_TOKEN=… -v "$PWD/models:/models:ro" topgb /models/model.safetensors
FROM python:3.11-slim AS build
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
# The package index's torch brings CUDA along, several GB; pip options that name PyTorch's index of CPU wheels leave it out:
#   --build-arg TORCH_OPTIONS="--index-url …"
ARG TORCH_OPTIONS=""
RUN pip install -c constraints.txt $TORCH_OPTIONS torch && pip install -c constraints.txt '.[serve,video]'

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home topgb
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
# By number: Kubernetes' runAsNonRoot cannot tell of a name whether it is root's.
USER 10001
WORKDIR /home/topgb
EXPOSE 8000
# Uploads are kept in /tmp while they are worked with.
HEALTHCHECK --interval=10s --start-period=60s --timeout=5s \
    CMD python -c "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8000/healthz', timeout=4)"
STOPSIGNAL SIGTERM
ENTRYPOINT ["topgb", "serve", "--host", "0.0.0.0", "--port", "8000"]
