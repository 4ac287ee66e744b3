#!/usr/bin/env bash
# Runs all fuzz targets for some minutes each, for a scheduled job. Keeps the corpora, prints a table, exits 1 at a finding.
#
#   fuzz/run.sh MINUTES [TARGET...]
#
# An input that takes more than 10 seconds or 2 GB is a finding too; a machine that is busy otherwise needs more time, such as
# FUZZ_FLAGS="-timeout=600 -report_slow_units=600". Again with a finding: `cargo +nightly fuzz run --features model TARGET FILE`.
# Needs cargo-fuzz, a nightly toolchain, Python with pyarrow, and for the targets of models libtorch as `cargo xtask setup` writes
# it to .cargo/libtorch.toml.
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${1:?usage: fuzz/run.sh MINUTES [TARGET...]}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"/\1/p' fuzz/Cargo.toml)
libtorch=$(sed -n 's/^LIBTORCH = "\(.*\)"/\1/p' .cargo/libtorch.toml)
export LD_LIBRARY_PATH="$libtorch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" OMP_NUM_THREADS=1
SIMPLEMIX_CACHE=$(mktemp -d)
export SIMPLEMIX_CACHE
trap 'rm -rf "$SIMPLEMIX_CACHE"' EXIT

python3 fuzz/seeds.py
cargo +nightly fuzz build --features model
programs=fuzz/target/$(rustc +nightly -vV | sed -n 's/^host: //p')/release
read -ra flags <<< "${FUZZ_FLAGS:-}"
mkdir -p fuzz/logs
row='%-12s %8s %8s %12s %9s %9s %9s'
table=$(printf "$row" target seconds cpu executions edges features findings)
found=0
for target in "${targets[@]}"; do
  log=fuzz/logs/$target.log
  # Whole paths, since a target may change its folder.
  artifacts=$PWD/fuzz/artifacts/$target
  mkdir -p "$artifacts"
  known=$(find "$artifacts" -type f | wc -l)
  start=$(date +%s)
  # The grammar takes its words from the code, not from the bytes.
  dictionary=()
  [ ! -f "fuzz/dictionaries/$target.dict" ] || dictionary=(-dict="fuzz/dictionaries/$target.dict")
  # Seconds of the processor that the fuzzer took, in the program and in the system.
  cpu=$(
    TIMEFORMAT='%U %S'
    { time "$programs/$target" "${dictionary[@]}" -max_total_time=$((minutes * 60)) -timeout=10 -rss_limit_mb=2048 \
      -malloc_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$artifacts/" "${flags[@]}" "$PWD/fuzz/corpus/$target" \
      > "$log" 2>&1 || true; } 2>&1
  )
  cpu=$(awk '{ printf "%.0f", $1 + $2 }' <<< "$cpu")
  seconds=$(($(date +%s) - start))
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)
  last=$(grep -o 'cov: [0-9]* ft: [0-9]*' "$log" | tail -1 || true)
  findings=$(($(find "$artifacts" -type f | wc -l) - known))
  # A target that did not run has found something too.
  [ -n "$executions" ] && [ "$findings" = 0 ] || found=1
  read -r _ edges _ features <<< "${last:-cov: ? ft: ?}"
  table+=$(printf "\n$row" "$target" "$seconds" "$cpu" "${executions:-none}" "$edges" "$features" "$findings")
done
printf '%s\n' "$table"
exit $found
