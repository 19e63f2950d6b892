# etcd as Debian packages it, for deployments that have none: `docker build -f deploy/container/etcd.Dockerfile -t windlass-etcd:0.1.0 .`
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends etcd-server etcd-client \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -m 700 -o 10001 -g 10001 /var/lib/windlass-etcd
USER 10001
EXPOSE 2379 2380
ENTRYPOINT ["etcd"]
