#!/bin/bash
# From the checkout: sbatch book/scale/slurm.sh runs/studies/first.yml
# Your site's names go here, such as --partition and --account.
#SBATCH --job-name=supermask
#SBATCH --ntasks=8
#SBATCH --cpus-per-task=2
#SBATCH --mem-per-cpu=2G
#SBATCH --time=24:00:00
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
export PATH="$PWD/.venv/bin:$PATH"

# A scheduler here, a worker a task: each runs one experiment at a time on the cores of its task, which srun must be told.
file="$PWD/.dask-${SLURM_JOB_ID:?start this with sbatch}.json"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -f "$file"' EXIT
dask scheduler --port 0 --dashboard-address :0 --scheduler-file "$file" &
srun --cpus-per-task "${SLURM_CPUS_PER_TASK:-2}" dask worker --scheduler-file "$file" --nthreads 1 --local-directory "${TMPDIR:-/tmp}" &

until [ -s "$file" ]; do sleep 1; done
address=$(sed -n 's/.*"address": "\([^"]*\)".*/\1/p' "$file" | head -n 1)
supermask study "$1" --scheduler "$address"
