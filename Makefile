# Everything a fresh Debian machine with a Rust toolchain needs is installed by the targets themselves.

VENV := .venv
PYTHON := $(VENV)/bin/python

# Training has an environment of its own: PyTorch is large, and nothing else needs it.
TRAIN_VENV := .venv-train
TRAIN_PYTHON := $(TRAIN_VENV)/bin/python
TRAIN := tools/train
RUNS := $(TRAIN)/runs
TRAIN_SECONDS := 3600
PROGRAM := target/release/windlass

.PHONY: demo test train export evidence test-cuda lint docs bench protoc cluster

# Builds Windlass and runs the demo: a coordinator and two workers answer a few hundred puzzles.
demo: protoc
	cargo run --release --locked --package windlass-cli -- demo

# All tests, with the Python packages that talk to Windlass, or that it talks to.
test: $(VENV)/installed protoc cluster
	$(PYTHON) -m unittest discover --start-directory $(TRAIN)/tests
	WINDLASS_TEST_PYTHON=$(abspath $(PYTHON)) RAYON_NUM_THREADS=1 cargo test --profile checked --locked --workspace
	$(MAKE) test-cuda

# The CUDA backend without a GPU: its kernels compiled for GPUs, and run on this machine's cores. All of it is built with the whole
# workspace, so that what others wrote is built once.
WITH_CUDA := --workspace --features windlass-cli/cuda,windlass-kernels/cuda-emulator,windlass-engine/cuda-emulator,windlass-worker/cuda-emulator

test-cuda: $(VENV)/cuda-installed protoc
	command -v g++ > /dev/null || { apt-get update && apt-get install -y --no-install-recommends g++; }
	export LD_LIBRARY_PATH=$(abspath $(VENV)/cuda/nvidia/cu13/lib); \
	cargo test --profile checked --locked $(WITH_CUDA) --test cuda && \
	cargo test --profile checked --locked $(WITH_CUDA) --lib --test goldens --test exactness -- cuda emulated history
	cargo test --profile checked --locked $(WITH_CUDA) --test doctor

$(VENV)/cuda-installed: tests/python/cuda-requirements.txt $(VENV)/installed
	$(PYTHON) -m pip install --quiet --target $(VENV)/cuda --requirement tests/python/cuda-requirements.txt
	touch $@

$(VENV)/installed: tests/python/requirements.txt
	python3 -c 'import venv, ensurepip' 2>/dev/null || { apt-get update && apt-get install -y --no-install-recommends python3 python3-venv; }
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --requirement tests/python/requirements.txt
	touch $@

# From nothing to models/demo, models/plain and docs/evidence.md: two runs side by side, of one process and TRAIN_SECONDS each. A run that
# was interrupted goes on where it was.
train: $(TRAIN_VENV)/installed protoc
	export OMP_NUM_THREADS=1 ONEDNN_PRIMITIVE_CACHE_CAPACITY=100000; \
	export LD_PRELOAD=$$(/sbin/ldconfig -p | awk '/libjemalloc\.so\.2 / { print $$NF; exit }') MALLOC_CONF=dirty_decay_ms:-1,muzzy_decay_ms:-1; \
	$(TRAIN_PYTHON) $(TRAIN)/train_plain.py $(RUNS)/plain --seconds $(TRAIN_SECONDS) & plain=$$!; \
	trap "kill $$plain 2> /dev/null" EXIT; \
	$(TRAIN_PYTHON) $(TRAIN)/train_recurrent.py $(RUNS)/recurrent --seconds $(TRAIN_SECONDS) && wait $$plain
	$(MAKE) export evidence

# The weights of the runs as they are now, checked against the engine.
export: $(TRAIN_VENV)/installed protoc
	$(TRAIN_PYTHON) $(TRAIN)/export.py $(RUNS)/recurrent models/demo
	$(TRAIN_PYTHON) $(TRAIN)/export.py $(RUNS)/plain models/plain --plain
	cargo build --release --locked --package windlass-cli
	WINDLASS_PROGRAM=$(abspath $(PROGRAM)) $(TRAIN_PYTHON) -m unittest discover --start-directory $(TRAIN)/tests

# docs/evidence.md, its plots, and the sample that the tests ask again, from the weights in models/.
evidence: $(VENV)/installed protoc
	cargo build --release --locked --package windlass-cli
	$(PYTHON) $(TRAIN)/evaluate.py docs/evidence/results.json --program $(PROGRAM) --model models/demo --plain models/plain
	$(PYTHON) $(TRAIN)/sample.py docs/evidence/sample.json --program $(PROGRAM) --model models/demo
	$(PYTHON) $(TRAIN)/evidence.py docs/evidence/results.json models docs

$(TRAIN_VENV)/installed: $(TRAIN)/requirements.txt
	python3 -c 'import venv, ensurepip' 2>/dev/null || { apt-get update && apt-get install -y --no-install-recommends python3 python3-venv; }
	{ command -v g++ && test -e /usr/include/python3*/Python.h; } > /dev/null || { apt-get update && apt-get install -y --no-install-recommends g++ python3-dev; }
	/sbin/ldconfig -p | grep --quiet 'libjemalloc\.so\.2 ' || { apt-get update && apt-get install -y --no-install-recommends libjemalloc2; }
	python3 -m venv $(TRAIN_VENV)
	$(TRAIN_PYTHON) -m pip install --quiet --requirement $(TRAIN)/requirements.txt
	touch $@

# What the client of etcd is built with, if it is missing.
protoc:
	{ command -v protoc && test -e /usr/include/google/protobuf/any.proto; } > /dev/null || { apt-get update && apt-get install -y --no-install-recommends protobuf-compiler libprotobuf-dev; }

# What tests of clusters need: etcd, and networks that can be cut.
cluster:
	{ command -v etcd && command -v etcdctl && command -v ip && command -v iptables; } > /dev/null || { apt-get update && apt-get install -y --no-install-recommends etcd-server etcd-client iproute2 iptables; }

lint: protoc
	cargo fmt --all --check
	cargo clippy --profile checked --locked --workspace --all-targets -- -D warnings
	cargo clippy --profile checked --locked $(WITH_CUDA) --all-targets -- -D warnings

docs: protoc
	RUSTDOCFLAGS='-D warnings' cargo doc --profile checked --locked --workspace --no-deps

bench: protoc
	RAYON_NUM_THREADS=1 cargo bench --locked --package windlass-engine --bench engine
	cargo run --release --locked --package windlass-cli -- bench engine --lanes 8,64 \
		--depths uniform:1:32 --depths geometric:8:32 --depths bimodal:4:32
