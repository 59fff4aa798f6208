#!/bin/bash
# The benchmarks run alone and on 2 ranks and print machine-readable results. This test does not check speed.
source "$(dirname "$0")/lib.sh"

configs=$repository/configs
unet=(--unet "$configs/tiny.yaml" --batch 2 --threads 1)
vae=(--vae "$configs/vae_quickstart.yaml" --size 16 --batch 2 --threads 1)

# reports CALL RANKS: $scratch/stdout has one line of JSON about CALL with the keys that programs read, and FLOPs were
# counted.
reports() {
    local line key
    line=$(grep "\"seconds_per_$1\":" "$scratch/stdout") || fail "no report on $1: $(cat "$scratch/stdout")"
    [[ $(wc -l <<<"$line") == 1 && $line == "{"*"}" ]] || fail "not one line of JSON: $line"
    for key in images_per_second peak_rss_mib gflop_per_image gflops; do
        grep -qE "\"$key\":[0-9]*[.]?[0-9]*[1-9]" <<<"$line" || fail "$key is not a number above 0: $line"
    done
    for key in "\"ranks\":$2," '"precision":"fp32"' '"ceilings_gflops":{' '"breakdown":{' '"convolution forward":{'; do
        grep -qF "$key" <<<"$line" || fail "no $key: $line"
    done
}

for count in 1 2; do
    expect_status 0 ranks "$count" "$disttrain" bench step "${unet[@]}" --precision fp32 --steps 2 --json
    reports step "$count"
    expect_status 0 ranks "$count" "$disttrain" bench sample "${unet[@]}" --precision fp32 --evaluations 2 --json
    reports evaluation "$count"
    expect_status 0 ranks "$count" "$disttrain" bench vae "${vae[@]}" --precision fp32 --passes 1 --json
    reports encode "$count"
    reports decode "$count"
done

for sharding in optimizer none; do
    expect_status 0 ranks 2 "$disttrain" bench checkpoint "${unet[@]}" --ema 0.9 --steps 1 --folder "$scratch" \
        --sharding "$sharding" --repeats 2 --saved-by 3 --json
    for key in bytes seconds_per_step stall_seconds save_seconds share_of_disk load_seconds load_other_seconds \
        peak_rss_mib; do
        grep -qE "\"$key\":[0-9]*[.]?[0-9]*[1-9]" "$scratch/stdout" || fail "$key: $(cat "$scratch/stdout")"
    done
    compgen -G "$scratch/disttrain-bench-*" && fail "the benchmark left its folder behind"
done
expect_status 3 "$disttrain" bench checkpoint "${unet[@]}" --folder "$scratch/none"
expect_text "cannot be created: No such file or directory" 1
expect_status 2 "$disttrain" bench checkpoint "${unet[@]}" --saved-by 0
expect_text "--saved-by 0: expected 1 or more"

# Human-readable output.
expect_status 0 "$disttrain" bench sample "${unet[@]}" --evaluations 1
expect_text "images/s; one evaluation takes" 1
expect_text "convolution forward" 1

expect_status 0 "$disttrain" bench kernels "$configs/tiny.yaml" --precision fp32 --batch 2 --threads 1
expect_text "3×3 2×32×32×24→24"
expect_text " flagged; " 1
expect_status 0 ranks 2 "$disttrain" bench kernels "$configs/tiny.yaml" --precision bf16 --batch 2 --threads 1 --json
[[ $(wc -l <"$scratch/stdout") == 1 ]] || fail "not one line of JSON"
expect_text '"case":"3×3 2×32×32×24→24"'

# PyTorch receives the same model.
expect_status 0 "$disttrain" bench model "$configs/tiny.yaml"
cp "$scratch/stdout" "$scratch/unet.json"
expect_text '"_class_name": "UNet2DModel"' 1
expect_status 0 "$disttrain" bench model "$scratch/unet.json"
cmp "$scratch/unet.json" "$scratch/stdout" || fail "another model"
expect_status 0 "$disttrain" bench model "$configs/vae_quickstart.yaml"
expect_text '"_class_name": "AutoencoderKL"' 1

# Bad usage.
expect_status 2 "$disttrain" bench sample "${unet[@]}" --evaluations 0
expect_text "--evaluations 0: expected 1 or more"
expect_status 2 "$disttrain" bench kernels --backend onednn
expect_text "every backend is timed"
expect_status 2 "$disttrain" bench sample --unet "$scratch/none.yaml"
expect_text "none.yaml: does not exist" 1
expect_status 3 "$disttrain" bench vae --vae "$configs/vae_quickstart.yaml" --size 18
expect_text "multiples of 4" 1
