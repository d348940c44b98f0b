#!/usr/bin/env bash
# On a node snakemake-executor-plugin-slurm-jobstep 0.6.1 starts srun without SLURM_CONF: where Slurm is configured by that
# variable, every job that Snakemake submits fails, though sbatch, squeue and srun by hand work.
#
# Expected: srun is started in the environment of the job that sbatch started, less what sets the size of a step.
# Seen: all variables that begin with SLURM_ are taken away but ten that identify the allocation. SLURM_CONF, which says where
#   the configuration is (sbatch(1), "SLURM_CONF: The location of the Slurm configuration file"), is none of the ten.
#
# The script installs public packages in a temporary folder, runs one job as the plugin does on a node, with a program
# called srun that writes down its environment and runs its command, and ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet snakemake==9.27.1 snakemake-executor-plugin-slurm-jobstep==0.6.1
export HOME="$folder" XDG_CACHE_HOME="$folder/cache" PATH="$folder/commands:$PATH"
mkdir "$folder/commands"
cat > "$folder/commands/srun" <<SH
#!/bin/sh
env | grep '^SLURM_' | sort > "$folder/srun"
while [ "\${1#-}" != "\$1" ]; do shift; done
exec "\$@"
SH
chmod +x "$folder/commands/srun"
cat > "$folder/Snakefile" <<'SNAKEFILE'
rule made:
    output: "made"
    shell: "touch {output}"
SNAKEFILE
cd "$folder"
"$folder/venv/bin/pip" list 2> /dev/null | grep -E '^snakemake(-executor-plugin-slurm-jobstep)? '
SLURM_JOB_ID=7 SLURM_CONF="$folder/slurm.conf" "$folder/venv/bin/snakemake" --executor slurm-jobstep --jobs 1 \
    --mode remote --target-jobs made: --cores 1 --nolock > "$folder/said" 2>&1 || cat "$folder/said"
test -e made
echo "expected: srun sees SLURM_CONF and SLURM_JOB_ID; seen: $(cut -d= -f1 "$folder/srun" | paste -sd ' ')"
if grep -q '^SLURM_JOB_ID=7$' "$folder/srun" && ! grep -q '^SLURM_CONF=' "$folder/srun"; then
    echo "as found"
else
    echo "the behaviour has changed"
    exit 1
fi
