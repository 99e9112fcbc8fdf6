# docker build -t sempic .
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/pictures" sempic encode photo.jpg
FROM python:3.12-slim

# What sempic brings no machine code for (ARM) is compiled here, not at each run, and for any such
# machine, not only for one like this. Whoever runs it may read and add to what is compiled.
ENV NUMBA_CACHE_DIR=/var/cache/numba NUMBA_CPU_NAME=generic PYTHONDONTWRITEBYTECODE=1

COPY pyproject.toml README.md LICENSE LICENSE-WEIGHTS /src/
COPY src /src/src
RUN pip install --no-cache-dir --only-binary :all: /src \
    && sempic --version

COPY examples/compile.py /src/
RUN mkdir -p "$NUMBA_CACHE_DIR" && python /src/compile.py && chmod -R a+rwX "$NUMBA_CACHE_DIR"

RUN useradd --create-home sempic
USER sempic
WORKDIR /pictures
ENTRYPOINT ["sempic"]
CMD ["--help"]
