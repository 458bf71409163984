#!/bin/bash
# One run on Slurm: a Ray cluster on the job's nodes, `doctor`, then the run. All ends with the job.
#   sbatch docs/cluster/slurm.sh /shared/runs/sst2 --task.name sst2 ...   (docs/cluster.md)
# The same line again goes on with a run that was stopped.
#SBATCH --job-name=hiso-ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120  # two minutes before the time is up the run stops, as by Ctrl-C
set -euo pipefail

out=$1
shift
PATH="$PWD/.venv/bin:$PATH"  # of the checkout in which sbatch was called, on shared storage
RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
# A port of its own for each job: nodes may be shared.
RAY_ADDRESS=$(python -c 'import ray; print(ray.util.get_node_ip_address())'):$((20000 + SLURM_JOB_ID % 20000))
export PATH RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_ADDRESS
node=(--block --disable-usage-stats --temp-dir="/tmp/ray-$SLURM_JOB_ID"
  --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")

trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
# This script runs on the job's first node.
ray start --head --node-ip-address="${RAY_ADDRESS%:*}" --port="${RAY_ADDRESS#*:}" "${node[@]}" &
if ((SLURM_NNODES > 1)); then
  srun --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) --ntasks-per-node=1 \
    --exclude="$SLURMD_NODENAME" --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    ray start --address="$RAY_ADDRESS" "${node[@]}" &
fi

hiso-ray doctor --nodes "$SLURM_NNODES" --out "$out" "$@"
if [[ -e $out/ledger.jsonl ]]; then
  hiso-ray resume "$out" &
else
  hiso-ray run --out "$out" "$@" &
fi
run=$!
trap 'kill -TERM "$run"' TERM
status=0
while kill -0 "$run" 2>/dev/null; do  # a signal interrupts the waiting
  status=0
  wait "$run" || status=$?
done
exit "$status"
