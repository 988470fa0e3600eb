# The server as an image: docker build -t server . && docker run -p 127.0.0.1:5000:5000 server
# With MongoDB and etcd: docker-compose up --build. What is tested of it, and where: docs/DEPLOY.md.
#
# It needs no BuildKit, and no network beyond the registries of images and of crates.

# --- The dependencies: built again only when a manifest or Cargo.lock changes.
FROM rust:1.95.0-slim-bookworm AS dependencies
# `dev` builds without optimisation, for trying the image out.
ARG PROFILE=release
ARG FEATURES=full
ENV CARGO_TERM_COLOR=never
WORKDIR /build
COPY .cargo/ .cargo/
COPY scripts/protoc scripts/protoc
COPY Cargo.toml Cargo.lock ./
COPY platform/Cargo.toml platform/
# Cargo wants to see each target that the manifests name. A target of your own belongs into this list.
RUN for target in src/main.rs src/lib.rs tests/suite/main.rs benches/http.rs benches/instructions.rs \
        benches/overload.rs platform/src/lib.rs platform/tests/suite/main.rs platform/benches/stores.rs; do \
        mkdir -p "$(dirname "$target")" && echo 'fn main() {}' >"$target"; \
    done \
    && cargo build --profile "$PROFILE" --locked --features "$FEATURES" --bin server

# --- The program: a change of the source begins here.
FROM dependencies AS build
ARG PROFILE=release
ARG FEATURES=full
COPY askama.toml ./
COPY schema/ schema/
COPY configs/ configs/
COPY views/ views/
COPY platform/ platform/
COPY src/ src/
# Cargo goes by time stamps, and those of a checkout may be older than the stubs above.
RUN touch src/main.rs src/lib.rs platform/src/lib.rs \
    && cargo build --profile "$PROFILE" --locked --features "$FEATURES" --bin server
# What the image consists of: the program, the libraries that it is linked to, the authorities that it trusts, and a user.
# No shell, no package manager. A newer base brings newer libraries.
RUN case "$PROFILE" in dev) built=target/debug/server ;; *) built=target/$PROFILE/server ;; esac \
    && mkdir -p /image/usr/local/bin /image/etc/ssl/certs /state/var /state/logs /state/keys \
    && cp "$built" /image/usr/local/bin/server \
    && ldd "$built" | grep -o '/[^ ]*' | sort -u | xargs cp --parents --dereference --target-directory=/image \
    && cp --dereference /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && echo 'server:x:10001:10001::/srv/server:/nologin' >/image/etc/passwd \
    && echo 'server:x:10001:' >/image/etc/group \
    && echo 'hosts: files dns' >/image/etc/nsswitch.conf

# --- The image.
FROM scratch
COPY --from=build /image/ /
# The volumes below begin with the owner of these folders.
COPY --from=build --chown=10001:10001 /state/ /srv/server/
COPY views/ /srv/server/views/
WORKDIR /srv/server
USER 10001:10001
# Inside a container localhost is reachable by nobody. Settings belong into the environment, where the health check sees
# them too.
ENV SERVER__SERVER__HOST=0.0.0.0
EXPOSE 5000
VOLUME ["/srv/server/var", "/srv/server/logs"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/server", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/server"]
# Two processes, as the original. The supervisor is process 1, and does what an init does.
CMD ["--proc", "2"]
