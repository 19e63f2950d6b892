# Everything a fresh Debian machine with a Rust toolchain needs is installed by the targets themselves.

VENV := .venv
PYTHON := $(VENV)/bin/python

.PHONY: demo test lint docs bench protoc cluster

# Builds Windlass and runs the demo: a coordinator and two workers answer a few hundred puzzles.
demo: protoc
	cargo run --release --locked --package windlass-cli -- demo

# All tests, with the Python packages that talk to Windlass, or that it talks to.
test: $(VENV)/installed protoc cluster
	WINDLASS_TEST_PYTHON=$(abspath $(PYTHON)) RAYON_NUM_THREADS=1 cargo test --release --locked --workspace

$(VENV)/installed: tests/python/requirements.txt
	python3 -c 'import venv, ensurepip' 2>/dev/null || { apt-get update && apt-get install -y --no-install-recommends python3 python3-venv; }
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --requirement tests/python/requirements.txt
	touch $@

# What the client of etcd is built with, if it is missing.
protoc:
	{ command -v protoc && test -e /usr/include/google/protobuf/any.proto; } > /dev/null || { apt-get update && apt-get install -y --no-install-recommends protobuf-compiler libprotobuf-dev; }

# What tests of clusters need: etcd, and networks that can be cut.
cluster:
	{ command -v etcd && command -v etcdctl && command -v ip && command -v iptables; } > /dev/null || { apt-get update && apt-get install -y --no-install-recommends etcd-server etcd-client iproute2 iptables; }

lint: protoc
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

docs: protoc
	RUSTDOCFLAGS='-D warnings' cargo doc --release --locked --workspace --no-deps

bench: protoc
	RAYON_NUM_THREADS=1 cargo bench --locked --package windlass-engine --bench engine
	cargo run --release --locked --package windlass-cli -- bench engine --lanes 8,64 \
		--depths uniform:1:32 --depths geometric:8:32 --depths bimodal:4:32
