#!/usr/bin/env bash
# snakemake 9.27.1 looks for jobs to start more and more often, the longer a run lasts: with the default limit of 100 jobs
# a second, once a second for each job that ended while others waited, though nothing has changed and no core is free.
#
# Expected: nothing to do between the end of one job and the next, or one look a second, however many jobs have ended.
# Seen: each look that finds waiting jobs starts a timer for one more look; each job that ends adds a look, and so a timer
#   that renews itself. After 40 quick jobs an idle wait of 8 s has 40 looks a second; after some hundred jobs they
#   fill a core. A longer span, --max-jobs-per-timespan 100000/10s, makes them ten times as rare, and the run ends up to
#   ten seconds later, as the process waits for its timers.
#
# The script installs public packages in a temporary folder, runs 42 jobs on one core, and ends with 1 if the behaviour
# has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet snakemake==9.27.1
export HOME="$folder" XDG_CACHE_HOME="$folder/cache"
cat > "$folder/show.py" <<'PYTHON'
import re
import subprocess
import sys
from pathlib import Path

folder = Path(sys.argv[1])
program = folder / "venv" / "bin" / "snakemake"
QUICK, WAIT = 40, 8
(folder / "Snakefile").write_text(f"""
rule all:
    input: expand("quick/{{i}}", i=range({QUICK})), "long/1", "long/2"
rule quick:
    output: "quick/{{i}}"
    priority: 1
    shell: "sleep 0.1; touch {{output}}"
rule long:
    output: "long/{{i}}"
    shell: "sleep {WAIT}; touch {{output}}"
""")
print("snakemake", subprocess.check_output([program, "--version"], text=True).strip())


def looks(*arguments):
    """How often waiting jobs were looked at before the first of the two long jobs began, and while it ran."""
    for made in [*folder.glob("quick/*"), *folder.glob("long/*")]:
        made.unlink()
    command = [program, "--cores", "1", "--verbose", "--printshellcmds", *arguments]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    before, during, _ = re.split(rf"sleep {WAIT};[^\n]*", done.stdout)[:3]
    return before.count("Ready jobs: "), during.count("Ready jobs: ")


before, during = looks()
print(f"default: {before} looks for {QUICK} quick jobs; expected at most {WAIT + 2} in the {WAIT} s after, seen {during}")
_, rare = looks("--max-jobs-per-timespan", "100000/10s")
print(f"100000/10s: seen {rare}")
as_found = during > QUICK * WAIT / 2 and rare < during / 4
print("as found" if as_found else "the behaviour has changed")
sys.exit(not as_found)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" "$folder"
