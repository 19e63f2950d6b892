#!/usr/bin/env bash
# Reruns all comparisons with other software and writes the tables to target/compare/figures.md.
#
#     tools/compare.sh                                               matrix products
#     REFERENCE=…/raven_modeling_minimal.py tools/compare.sh         and tokens/s of the reference implementation
#
# Installs what it needs: Debian's libdnnl2 and libopenblas0-pthread (as root or by sudo), and PyTorch and MKL in a virtual
# environment under target/compare. Variables:
#     PASSES=3            times that everything is measured; medians over passes count
#     SIZES, ROWS, TYPES, THREADS, WEIGHTS    as the options of compare-products
#     MODELS='random demo', BATCHES=1,16, TYPES    of the reference
#     ISA=avx512-dot      all contestants without AMX (or `avx2`: without AVX-512)
#     UNDER='taskset -c 0,1'    a command that each measurement runs under
#     PARTS='products reference'
#     KEEP=1              add to the lines of earlier runs instead of starting anew
set -euo pipefail
cd "$(dirname "$0")/.."

out=target/compare
passes=${PASSES:-3}
sizes=${SIZES:-1024x1024,3072x1024,5632x1024,1024x2816,8192x1024,17920x5280}
rows=${ROWS:-1,2,4,8,16,64,256}
types=${TYPES:-f32,bf16}
threads=${THREADS:-1,2}
weights=${WEIGHTS:-many}
under=${UNDER:-}
parts=${PARTS:-products reference}
batches=${BATCHES:-1,16}
python=$PWD/$out/venv/bin/python
mkdir -p "$out"

limit=()
case ${ISA:-} in
    '') ;;
    avx512-dot) export ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 MKL_ENABLE_INSTRUCTIONS=AVX512_E3 ;;
    avx2) export ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 ATEN_CPU_CAPABILITY=avx2 ;;
    *) echo "ISA is ${ISA}: use avx512-dot or avx2" >&2; exit 2 ;;
esac
[ -z "${ISA:-}" ] || limit=(--isa "$ISA")

install() {
    if ! ldconfig -p | grep -q 'libdnnl\.so\.2' || ! ldconfig -p | grep -q 'libopenblas\.so\.0'; then
        local root=()
        [ "$(id -u)" = 0 ] || root=(sudo)
        "${root[@]}" apt-get install -y --no-install-recommends libdnnl2 libopenblas0-pthread
    fi
    if [ ! -x "$python" ]; then
        python3 -m venv "$out/venv"
        "$python" -m pip install --quiet torch==2.15.0 transformers==4.51.3 safetensors numpy mkl
    fi
    local mkl
    mkl=$(find "$PWD/$out/venv/lib" -name 'libmkl_rt.so.*' | head -n 1)
    export MKL_RT=$mkl
    mkl_path=$(dirname "$mkl")
}

products() {
    local lines=$out/products.jsonl
    local tool=tools/compare_products/target/release/compare-products
    $under cargo build --release --manifest-path tools/compare_products/Cargo.toml
    [ -n "${KEEP:-}" ] || : >"$lines"
    for pass in $(seq "$passes"); do
        for size in ${sizes//,/ }; do
            for type in ${types//,/ }; do
                for count in ${threads//,/ }; do
                    echo "products, pass $pass of $passes: $size $type, $count threads" >&2
                    local options=(--threads "$count" --sizes "$size" --rows "$rows" --types "$type")
                    options+=(--weights "$weights" --rounds 9 --json "$lines")
                    LD_LIBRARY_PATH=$mkl_path $under "$tool" "${options[@]}" "${limit[@]}" 2>>"$out/products.log"
                    $under "$python" tools/compare_products/torch_products.py "${options[@]}"
                done
            done
        done
    done
    {
        echo '## Matrix products'
        echo
        echo "$(machine). GOP/s, medians of $passes passes; in brackets Windlass over the contestant, or GB/s of weights; ✗: below the bar."
        "$tool" table "$lines"
        echo
        echo "Ceilings of this machine:"
        echo
        $under "$tool" ceilings
    } >"$out/products.md"
}

reference() {
    local lines=$out/reference.jsonl
    $under cargo build --release -p windlass-cli
    [ -n "${KEEP:-}" ] || : >"$lines"
    for model in ${MODELS:-random demo}; do
        for type in ${types//,/ }; do
            for batch in ${batches//,/ }; do
                echo "reference: $model $type, batch $batch" >&2
                $under "$python" tools/compare_reference.py --reference "$REFERENCE" --windlass target/release/windlass \
                    --models "$model" --types "$type" --batches "$batch" --json "$lines" >/dev/null
            done
        done
    done
    {
        echo '## Tokens per second beside the reference'
        echo
        "$python" tools/compare_reference.py --table "$lines"
    } >"$out/reference.md"
}

machine() {
    local name
    name=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
    echo "$name, $(nproc) cores, $(date -u +%Y-%m-%d), revision $(git rev-parse --short HEAD)"
}

install
for part in $parts; do
    if [ "$part" = reference ] && [ -z "${REFERENCE:-}" ]; then
        echo 'reference: left out, since REFERENCE does not name a copy of raven_modeling_minimal.py' >&2
    else
        "$part"
    fi
done
cat "$out"/products.md "$out"/reference.md >"$out/figures.md" 2>/dev/null || true
echo "$out/figures.md" >&2
