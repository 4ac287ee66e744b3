#!/usr/bin/env bash
# Trains under the real torchrun, of PyTorch from PyPI, as with one process; then with a process killed, and a restart.
#
#   tests/launchers/torchrun.sh SIMPLEMIX MODEL PAIRS FOLDER
#
# SIMPLEMIX is the program, MODEL a small model's folder, PAIRS a file of pairs, FOLDER an empty or new folder for the runs. torchrun and
# python3 with torch and safetensors are those of the PATH.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=$1 model=$2 pairs=$3 folder=$4
mkdir -p "$folder"
train=(train --model "$model" --train "$pairs" --max-steps 30 --learning-rate 1e-5 --save-every-steps 10)
"$program" "${train[@]}" --output "$folder/one"
for processes in 2 4; do
  torchrun --no-python --standalone --nproc-per-node "$processes" "$program" "${train[@]}" --output "$folder/of-$processes"
  python3 "$here/compare.py" "$folder/one" "$folder/of-$processes"
done
for shard in optimizer all; do
  torchrun --no-python --standalone --nproc-per-node 3 "$program" "${train[@]}" --output "$folder/$shard" --set "parallel.shard=$shard"
  python3 "$here/compare.py" "$folder/one" "$folder/$shard"
done
# Rank 0 keeps the store where torchrun does not.
TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --no-python --standalone --nproc-per-node 2 "$program" "${train[@]}" --output "$folder/own-store"
python3 "$here/compare.py" "$folder/one" "$folder/own-store"

# A process that is killed ends all; torchrun starts them again, and the run goes on from its checkpoint.
killed=$folder/killed
torchrun --no-python --standalone --nproc-per-node 3 --max-restarts 1 "$program" "${train[@]}" --output "$killed" --resume auto &
launcher=$!
until [ -d "$killed/checkpoints/step-10" ] || ! kill -0 "$launcher" 2> /dev/null; do sleep 0.1; done
for child in $(pgrep -P "$launcher"); do
  if tr '\0' '\n' < "/proc/$child/environ" | grep -qx RANK=2; then kill -KILL "$child"; fi
done
wait "$launcher"
python3 "$here/compare.py" "$folder/one" "$killed"
echo "torchrun: all runs are those of one process"
