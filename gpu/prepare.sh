#!/usr/bin/env bash
# prepare.sh: builds and packs into .gpu/, which git ignores, what gpu/validate.sh needs beside the working tree: the programs,
# the wheels that a machine with PyTorch and transformers lacks, and a library that counts kernels. No model or data: validate.sh
# makes them from seeds.
#
#   PYTHON_VERSION  Python of the machine with the GPU, 3.12 where unset
#   CARGO           cargo, or a command in its place
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
most_mib=64

$cargo build --release --locked --package simplemix-cli --package simplemix \
  --bin simplemix --example gpu_check
target=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')

rm -rf .gpu
mkdir -p .gpu/wheels
# The profile strips symbols. Compressed, they travel in a third of the time.
gzip -9c "$target/release/simplemix" >.gpu/simplemix.gz
gzip -9c "$target/release/examples/gpu_check" >.gpu/gpu_check.gz
cc -shared -fPIC -O2 -Wall -Wextra -o .gpu/libcount.so gpu/count.c -ldl
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version "${PYTHON_VERSION:-3.12}" \
  --dest .gpu/wheels --requirement gpu/wheels.txt
git rev-parse HEAD >.gpu/commit

# What a machine is sent: tracked files and .gpu/.
bytes=$({ git ls-files -z; find .gpu -type f -print0; } | du -cb --files0-from=- | tail -1 | cut -f1)
mib=$((bytes >> 20))
echo "$mib MiB travel, of which .gpu/ is $(du -sm .gpu | cut -f1)"
if [ "$mib" -ge "$most_mib" ]; then
  echo "more than $most_mib MiB: leave something out" >&2
  exit 1
fi
