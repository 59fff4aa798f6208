#!/bin/bash
# Fuzzes the readers of untrusted files, each for a share of SECONDS_IN_ALL, on one core. Found inputs and the corpus,
# which grows from run to run, lie under Fuzzing/.build.
# usage: run.sh [SECONDS_IN_ALL [TARGET ...]]
set -euo pipefail
shopt -s nullglob
cd "$(dirname "$0")"
seconds=${1:-600}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] ||
    targets=(FuzzJSON FuzzSafetensors FuzzIndex FuzzConfig FuzzYAML FuzzTar FuzzNPZ FuzzEXIF FuzzWatcher
        FuzzPickle FuzzTorch)
fixtures=(../Tests/Fixtures)
hostile=../Tests/Fixtures/hostile

for target in "${targets[@]}"; do
    # Of several -sanitize options the compiler heeds the last.
    DISTTRAIN_FUZZING=1 swift build --package-path .. --scratch-path .build -c release --sanitize fuzzer \
        --sanitize address -Xswiftc -sanitize=fuzzer,address --product "$target"
done

work=.build/fuzz
scratch=$(mktemp -d -p /dev/shm)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$work"/{seeds,found}
rm -rf "$work"/seeds/*
seed() { # TARGET FILE...: small files to start from
    local target=$1 file
    shift
    mkdir -p "$work/seeds/$target" "$work/corpus/$target"
    for file in "$@"; do cp "$file" "$work/seeds/$target/$(echo "$file" | md5sum | cut -c1-12)"; done
}
mapfile -t configs < <(find "${fixtures[@]}" -name '*config.json')
mapfile -t indexes < <(find "${fixtures[@]}" -name '*.index.json')
mapfile -t weights < <(find "${fixtures[@]}" -name '*.safetensors' -size -16k)
seed FuzzJSON "${configs[@]}" seeds/*.json "$hostile"/*/*/*.json
seed FuzzSafetensors "${weights[@]}"
seed FuzzIndex "${indexes[@]}" seeds/*index.json "$hostile"/index/*/*
seed FuzzWatcher seeds/*.watcher
seed FuzzYAML ../configs/*.yaml seeds/*.yaml
inputs=$scratch/inputs
./make_seeds.py "$inputs"
seed FuzzTar "$inputs"/*.tar "$inputs"/*.tgz "$inputs"/*.zip "$inputs"/*.npy.bin
seed FuzzNPZ "$inputs"/*.npz "$inputs"/*.npy ../Tests/Fixtures/evaluation/*.npz
seed FuzzPickle ../Tests/Fixtures/pickles/*.pkl
seed FuzzTorch ../Tests/Fixtures/torch/*.{pt,ckpt,bin} "$inputs"/*.pkl
seed FuzzEXIF "$inputs"/*.tiff ../Tests/Fixtures/images/*.{png,jpg,webp}
seed FuzzConfig "${configs[@]}" seeds/*config.json "$hostile"/config/*/*

# Swift's own backtraces would hide which line failed behind a fault of AddressSanitizer.
export SWIFT_BACKTRACE=enable=no
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
status=0
for target in "${targets[@]}"; do
    echo "== $target"
    TMPDIR=$scratch nice -n 5 ".build/release/$target" \
        -max_total_time=$((seconds / ${#targets[@]})) -max_len=8192 -timeout=5 -report_slow_units=1 \
        -rss_limit_mb=2048 -dict=json.dict -artifact_prefix="$work/found/$target-" -print_final_stats=1 \
        "$work/corpus/$target" "$work/seeds/$target" >"$work/$target.log" 2>&1 || status=1
    grep -E '^(#[0-9]+.*(DONE|INITED)|stat::|Done|SUMMARY|Slowest|==[0-9]+==|Fatal)' "$work/$target.log" || true
done
ls "$work/found" 2>/dev/null | sed "s|^|found: Fuzzing/$work/found/|"
exit $status
