# The service, on the CPU:
#
#     docker build --tag electrain .
#     docker run --rm --publish 127.0.0.1:8765:8765 --volume "$PWD/run:/model:ro" electrain
#
# The folder of a run, a model or an export is mounted at /model, and the page is at http://localhost:8765.
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
# PyPI's torch for Linux brings several GB for GPUs; this one is for the CPU.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0
COPY constraints.txt /tmp/constraints.txt
COPY --from=wheel /wheels /tmp/wheels
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt "$(echo /tmp/wheels/*.whl)[serve,export]" \
    && rm -r /tmp/wheels /tmp/constraints.txt
RUN useradd --create-home --uid 10001 electrain
USER electrain
WORKDIR /home/electrain
EXPOSE 8765
# Loading a large model takes a while.
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8765/health', timeout=4)"]
# The form without a shell, so that SIGTERM reaches the service, which then finishes what it accepted.
ENTRYPOINT ["electrain", "serve", "--host", "0.0.0.0", "--port", "8765"]
CMD ["--model", "model=/model"]
