# Both services. Dependencies and earlier builds are kept in cache mounts, so that a change of the code builds only the code.

FROM rust:1.95-bookworm AS builder
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked -p order-service -p payment-service --features kafka-tls && \
    mkdir /out && cp target/release/order-service target/release/payment-service /out/

FROM debian:bookworm-slim AS runtime
RUN apt-get update && \
    apt-get install --yes --no-install-recommends ca-certificates libssl3 && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tandem
USER tandem
# Also on hosts where each process gets huge pages without asking: the allocator refuses them.
ENV MIMALLOC_ALLOW_THP=0

FROM runtime AS order-service
COPY --from=builder /out/order-service /usr/local/bin/
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=6 CMD ["order-service", "healthcheck"]
CMD ["order-service", "run"]

FROM runtime AS payment-service
COPY --from=builder /out/payment-service /usr/local/bin/
EXPOSE 8001
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=6 CMD ["payment-service", "healthcheck"]
CMD ["payment-service", "run"]
