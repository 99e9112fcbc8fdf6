# docker build -t sempic .
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/pictures" sempic encode photo.jpg
# docker run --rm -p 8000:8000 sempic serve --host 0.0.0.0
FROM python:3.12-slim

# Machine code comes along for every processor that this image runs on: nothing is compiled in it.
ENV PYTHONDONTWRITEBYTECODE=1

COPY pyproject.toml README.md LICENSE LICENSE-WEIGHTS /src/
COPY src /src/src
RUN pip install --no-cache-dir --only-binary :all: '/src[serve]' \
    && sempic --version

RUN useradd --create-home sempic
USER sempic
WORKDIR /pictures
ENTRYPOINT ["sempic"]
CMD ["--help"]
