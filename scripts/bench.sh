#!/bin/bash
# Compares DistTrain with PyTorch and diffusers in training, sampling, the first stage and checkpoints, in alternation;
# prints Markdown tables.
#
#   scripts/bench.sh
#
#   ROWS="train sample vae models checkpoint"    rows to measure; all by default
#   ROUNDS=3  COUNT=3                 runs of each command, and timed calls per run; the table has medians
#   BENCH_VENV=FOLDER                 a virtual environment with torch and diffusers; one is created by default
#   BENCH_FOLDER=FOLDER               on the disk for which checkpoints are measured; the current folder by default
#   BENCH_LOG=FILE                    stores the JSON line of every run
#   BENCH_PREFIX=COMMAND              prefix of every command, e.g. "taskset -c 0,1"
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${BENCH_VENV:-}
if [[ -z $venv ]]; then
    venv=${XDG_CACHE_HOME:-$HOME/.cache}/disttrain/bench-venv
    if ! cmp -s scripts/bench/requirements.txt "$venv/requirements.txt"; then
        echo "installing PyTorch and diffusers into $venv" >&2
        python3 -m venv "$venv"
        "$venv/bin/python" -m pip install --disable-pip-version-check --quiet -r scripts/bench/requirements.txt
        cp scripts/bench/requirements.txt "$venv/requirements.txt"
    fi
fi
[[ -x $venv/bin/python ]] || { echo "no Python at $venv/bin/python" >&2; exit 1; }

# Do not download anything from a model hub.
export HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
# shellcheck disable=SC2086  # rows are words
"$venv/bin/python" scripts/bench/compare.py ${ROWS:-} --rounds "${ROUNDS:-3}" --count "${COUNT:-3}" --folder "${BENCH_FOLDER:-.}" \
    ${BENCH_LOG:+--log "$BENCH_LOG"} ${BENCH_PREFIX:+--prefix "$BENCH_PREFIX"}
