#!/usr/bin/env bash
# snakemake 9.27.1: of two runs in one folder, with different targets, the first to end deletes the locks of the other.
#
# Expected: while a run is at work its outputs are locked: another run that would make them stops with "Directory cannot be locked".
#   That a third run ended meanwhile, which made something else, changes nothing.
# Seen: at its end a run deletes the whole folder .snakemake/locks. The longer run goes on without a lock, and a second one of the
#   same output begins beside it. (Where two runs end at the same moment one may fail, as the folder is gone; seen, not shown here.)
#
# The script installs a public package in a temporary folder, prints what is locked, and ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
nice -n 10 "$folder/venv/bin/pip" install --quiet snakemake==9.27.1
cd "$folder"
cat > Snakefile <<'SNAKEFILE'
rule wait:
    output: "{seconds}.txt"
    shell: "sleep {wildcards.seconds}; touch {output}"
SNAKEFILE
snakemake="$folder/venv/bin/snakemake --cores 1"
"$folder/venv/bin/snakemake" --version
$snakemake 90.txt > long.log 2>&1 &
long=$!
until ls .snakemake/locks/*.output.lock > /dev/null 2>&1; do sleep 1; done

locked() {
    if ! $snakemake 90.txt > again.log 2>&1 && grep -q "cannot be locked" again.log; then echo locked; else echo free; fi
}

before=$(locked)
echo "while the long run is at work its output is: $before"
$snakemake 1.txt > short.log 2>&1
left=$({ ls .snakemake/locks 2> /dev/null || true; } | wc -l)
echo "files of locks after a short run of another output has ended: $left"
kill "$long" 2> /dev/null || true
wait "$long" 2> /dev/null || true
if [ "$before" != locked ] || [ "$left" != 0 ]; then
    echo "changed: the locks of other runs are left alone"
    exit 1
fi
