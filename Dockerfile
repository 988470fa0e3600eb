# The server as an image: docker build -t server . && docker run -p 5000:5000 server
# A first version: it has not been built by .ci/run, which has no container engine.

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
# Every engine. The cache mounts keep downloads and dependencies between builds; they are no part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --features full \
    && cp target/release/server /server

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /srv/server server \
    && install --directory --owner server --group server \
        /srv/server /srv/server/var /srv/server/logs /srv/server/keys
WORKDIR /srv/server
COPY --from=build /server /usr/local/bin/server
COPY views/ views/
COPY configs/ configs/
USER 10001:10001
# Inside a container localhost is reachable by nobody.
ENV SERVER__SERVER__HOST=0.0.0.0
EXPOSE 5000
VOLUME ["/srv/server/var", "/srv/server/logs"]
# No HEALTHCHECK: the image has nothing to ask with. Point the orchestrator at /ping.
ENTRYPOINT ["/usr/local/bin/server"]
