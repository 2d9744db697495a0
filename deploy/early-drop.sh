#!/usr/bin/env bash
# The early-drop table of the MMS paper (arXiv:1911.06996): selection with the learning rate dropped early, against plain
# training with the same schedule and with its own, three times as long. Interrupted, the same command goes on.
#
#   deploy/early-drop.sh cifar10|cifar100 OUT [OPTIONS of `marginstream compare`, such as --data-root ~/data]
#
# Writes OUT/early and OUT/normal, each with results.json and report.html. More scorers: --scorers N.
set -euo pipefail

usage="usage: $0 cifar10|cifar100 OUT [OPTIONS of marginstream compare]"
name=${1:?$usage}
out=${2:?$usage}
shift 2
papers=$(dirname "$0")/configs/papers
if [[ ! -f $papers/mms-$name.toml ]]; then
    echo "no such table: $name; $usage" >&2
    exit 2
fi

# `fresh:method=loss` is the paper's hard-negative mining. Under `wait` every step trains on scored candidates.
marginstream compare --config "$papers/mms-$name.toml" --fallback wait \
    --arms uniform fresh fresh:method=loss stale:8 stale:64 --out "$out/early" "$@"
marginstream compare --config "$papers/mms-$name-normal.toml" \
    --arms uniform --out "$out/normal" "$@"
