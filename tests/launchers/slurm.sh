#!/usr/bin/env bash
# Trains under a real Slurm: two nodes that are this machine, with Debian's slurmctld, slurmd, slurm-client and munge, as root.
#
#   tests/launchers/slurm.sh SIMPLEMIX MODEL PAIRS FOLDER
#
# As torchrun.sh; Slurm's own files and logs go to FOLDER/slurm, and its programs are ended at the end.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=$1 model=$2 pairs=$3 folder=$4
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
slurm=$folder/slurm
mkdir -p "$slurm/state" "$slurm/spool.n1" "$slurm/spool.n2"
export SLURM_CONF=$slurm/slurm.conf
cat > "$SLURM_CONF" << CONF
ClusterName=one
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=$slurm/state
SlurmdSpoolDir=$slurm/spool.%n
SlurmctldPidFile=$slurm/slurmctld.pid
SlurmdPidFile=$slurm/slurmd.%n.pid
SlurmctldLogFile=$slurm/slurmctld.log
SlurmdLogFile=$slurm/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=10
NodeName=n[1-2] NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
CONF
munge=
end() {
  for name in slurmd.n1 slurmd.n2 slurmctld; do
    [ ! -f "$slurm/$name.pid" ] || kill "$(cat "$slurm/$name.pid")" || true
  done
  [ -z "$munge" ] || kill "$munge" || true
}
trap end EXIT
if [ ! -S /run/munge/munge.socket.2 ]; then
  install -d -o munge -g munge -m 0755 /run/munge
  runuser -u munge -- /usr/sbin/munged --foreground &
  munge=$!
  until [ -S /run/munge/munge.socket.2 ]; do sleep 0.1; done
fi
slurmctld
slurmd -N n1
slurmd -N n2
until [ "$(sinfo -h -o %T | sort -u)" = idle ]; do sleep 0.5; done

# The nodes' names lead nowhere, as they do not on such a machine; on a cluster they do.
export MASTER_ADDR=127.0.0.1 OMP_NUM_THREADS=1 GLOO_SOCKET_IFNAME=lo
train=(train --model "$model" --train "$pairs" --max-steps 30 --learning-rate 1e-5 --save-every-steps 10)
"$program" "${train[@]}" --output "$folder/one"
srun -N 2 -n 4 "$program" "${train[@]}" --output "$folder/of-4"
python3 "$here/compare.py" "$folder/one" "$folder/of-4"
srun -N 2 -n 3 "$program" "${train[@]}" --output "$folder/all" --set parallel.shard=all
python3 "$here/compare.py" "$folder/one" "$folder/all"

# A job that is told to end before its time saves and ends; the same command goes on with fewer processes.
stopped=$folder/stopped
srun -N 2 -n 4 --job-name stopped "$program" "${train[@]}" --output "$stopped" --resume auto &
step=$!
until grep -q "^{\"step\":5," "$stopped/metrics.jsonl" 2> /dev/null; do sleep 0.1; done
scancel --signal USR1 --name stopped
! wait "$step"
[ ! -f "$stopped/finished.json" ]
srun -N 1 -n 2 "$program" "${train[@]}" --output "$stopped" --resume auto
python3 "$here/compare.py" "$folder/one" "$stopped"
echo "Slurm: all runs are those of one process"
