# A server of one bundle: ONNX Runtime and the page, without torch.
# Untested: no container engine was at hand. Its commands were run in a plain virtual environment.
#
#   docker build -t hcoatnet-serve .
#   docker run --rm --read-only -p 127.0.0.1:8000:8000 -v "$PWD/bundle:/bundle:ro" \
#     -v "$PWD/token.txt:/run/secrets/token:ro" hcoatnet-serve --token-file /run/secrets/token

FROM python:3.12-slim AS build
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.12-slim
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
COPY requirements-serve.txt /
RUN pip install --no-cache-dir --require-hashes -r /requirements-serve.txt
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-deps /wheels/*.whl && useradd --system --uid 10001 hcoatnet
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["hcoatnet", "serve", "/bundle", "--host", "0.0.0.0", "--port", "8000"]
