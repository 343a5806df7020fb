# A trained network behind HTTP; docs/serving.md says how to build and run it.
FROM python:3.11-slim AS build
# Where pip finds torch's build for processors alone, which is several gigabytes smaller than the usual one.
ARG PIP_EXTRA_INDEX_URL
RUN python -m venv /opt/effnet
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN /opt/effnet/bin/python -m pip install --no-cache-dir --constraint constraints.txt ".[onnx,openvino,serve]"

FROM python:3.11-slim
COPY --from=build /opt/effnet /opt/effnet
# Nothing is written but what libraries keep for their next start.
ENV PATH=/opt/effnet/bin:$PATH \
    EFFNET_CACHE=/tmp/effnet \
    HF_HOME=/tmp/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --start-period=60s --interval=10s --timeout=5s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["effnet", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/run"]
