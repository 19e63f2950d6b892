#!/usr/bin/env bash
# Shows on a machine with a GPU, unattended and in about 10 minutes at most: every operation against its twin, the recorded generations,
# figures at the shape of Huginn-0125, and a PyTorch loop of the same arithmetic beside them; with several GPUs, in three minutes and
# 15 seconds a GPU more, two stages and two ranks as well.
#
#     OUT=figures tools/gpu_check.sh target/release/windlass
#
# The program is one built with `cargo build --release --features cuda --package windlass-cli`; it may have been built on another
# machine. Needs the NVIDIA driver, NVRTC of CUDA 13 and, for the parity and the peer, python3; for the peer, PyTorch. Where NCCL is
# there, sums over ranks are tested with it, on all GPUs. Writes a file per step into $OUT, and after each of them all files into
# $ARCHIVE (else $OUT.tgz, and never in $OUT), so that whoever ends this early has what is done. Ends with 1 if any step failed: at once
# where there is no GPU, or where selftest or goldens fail, since figures would then mean nothing. STEPS="ring prefill" runs these alone.
set -uo pipefail

windlass=$(realpath "${1:?usage: OUT=DIR tools/gpu_check.sh WINDLASS}") || exit 1
here=$(cd "$(dirname "$0")/.." && pwd)
out=${OUT:-$PWD/gpu-check}
out=${out%/}
mkdir -p "$out"
archive=${ARCHIVE:-$out.tgz}
all='selftest goldens ring full drafts mixed prefill peer stages ranks'
read -r -a steps <<<"${STEPS:-$all}"
shape=d=5280,heads=55,ff=17920,layers=2+4+2,vocabulary=65536,context=4096
ran=() failed=()

fail() {
    echo "gpu_check: $*" >&2
    exit 1
}

for name in "${steps[@]}"; do
    [[ " $all " == *" $name "* ]] || fail "STEPS has $name: use some of $all"
done

# Runs a step for at most so many seconds, if it was asked for; what it prints goes to a file of its name.
step() {
    local name=$1 seconds=$2 status=0
    shift 2
    [[ " ${steps[*]} " == *" $name "* ]] || return 0
    ran+=("$name")
    echo "== $name: $*" | tee -a "$out/commands.txt"
    timeout --kill-after 5 "$seconds" "$@" >"$out/$name.out" 2>"$out/$name.err" || status=$?
    if [ $status -ne 0 ]; then
        failed+=("$name")
        echo "   FAILED with $status:" >&2
        tail -n 5 "$out/$name.out" "$out/$name.err" >&2
    fi
    tar --create --gzip --file "$archive" --directory "$out" .
    return $status
}

# The dynamic loader must find the run-time compiler and NCCL, which toolkits and wheels put elsewhere.
find_library() {
    local file=$1 wheels folder
    wheels=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null)
    for folder in /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib "$wheels"/*/lib; do
        if [ -e "$folder/$file" ]; then
            export LD_LIBRARY_PATH=$folder:${LD_LIBRARY_PATH:-}
            return
        fi
    done
}

command -v nvidia-smi >/dev/null || fail "no nvidia-smi: this machine has no NVIDIA driver, so nothing was measured"
nvidia-smi >"$out/nvidia-smi.out" || fail "nvidia-smi fails: no GPU can be used, so nothing was measured"
# PyTorch has libraries of its own, and finds them by itself.
own_libraries=${LD_LIBRARY_PATH:-}
find_library libnvrtc.so.13
find_library libnccl.so.2
date -u >"$out/date.out"
timeout 30 "$windlass" doctor --backend cuda >"$out/doctor.out" || fail "windlass doctor finds no GPU it can use: nothing was measured"

bench() {
    "$windlass" bench engine --backend cuda --shape "$shape" --weights bf16 "$@"
}
export -f bench
export windlass shape

timeout 30 "$windlass" doctor --json >"$out/doctor.json"
tell='import json, sys; cuda = json.load(sys.stdin)["cuda"]; print(len(cuda["devices"]), cuda["has_nccl"])'
read -r gpus has_nccl < <(python3 -c "$tell" <"$out/doctor.json") || fail "windlass doctor does not tell how many GPUs there are"
gpu_list=$(seq -s , 0 $((gpus - 1)))
step selftest $((105 + 15 * gpus)) "$windlass" doctor --backend cuda --selftest --cuda-devices "$gpu_list" \
    || fail "the selftest failed, so nothing else was measured; see $out"
step goldens 60 python3 "$here/tools/gpu_parity.py" --windlass "$windlass" --goldens "$here/tests/goldens/huginn-tiny" \
    || fail "the recorded generations failed, so nothing else was measured; see $out"
deep='--depths fixed:32 --tokens 8 --modes depth --rounds 3'
step ring 70 bash -c "bench --kv ring:1 $deep --lanes 1,8,64,256 --requests 4,16,128,512"
step full 60 bash -c "bench --kv full $deep --lanes 1,8,64 --requests 4,16,128"
step drafts 50 bash -c "bench --kv full --depths fixed:32 --lanes 1,8 --requests 1,8 --tokens 16 --modes depth,drafts --rounds 2"
spread='--depths uniform:1:32 --depths geometric:8:32 --depths bimodal:4:32'
step mixed 60 bash -c "bench --kv ring:1 $spread --lanes 64 --requests 128 --tokens 16 --rounds 1 --modes depth,lockstep,full-depth,homogeneous"
step prefill 40 bash -c "bench --kv ring:1 --depths fixed:32 --lanes 1 --requests 4 --prompt 1024 --tokens 1 --max-rows 1024 --modes depth --rounds 3"
step peer 90 env --unset=LD_LIBRARY_PATH ${own_libraries:+LD_LIBRARY_PATH="$own_libraries"} python3 "$here/tools/gpu_peer.py"
if [ "$gpus" -gt 1 ]; then
    step stages 90 bash -c "bench --stages 2 --kv ring:1 $deep --lanes 64 --requests 128"
    [ "$has_nccl" = False ] || step ranks 90 bash -c "bench --tp 2 --kv ring:1 $deep --lanes 64 --requests 128"
fi

[ ${#ran[@]} -gt 0 ] || fail "none of the steps ${steps[*]} can be made on this machine"
if [ ${#failed[@]} -gt 0 ]; then
    fail "these steps failed: ${failed[*]}; see $out"
fi
echo "gpu_check: passed: ${ran[*]}; figures are in $out and $archive"
