#!/usr/bin/env bash
# snakemake 9.27.1 leaves out jobs with ancient() inputs that have a reason of their own to run, when a job upstream of
# them runs: even a requested file that is missing is not made, and snakemake ends with 0.
#
# Expected: ancient() keeps times of files and runs of jobs upstream from being a reason. Changed params and a missing
#   target remain reasons, so one run makes all.
# Seen: DAG.update_needrun does not ask jobs downstream of a job that runs for reasons, since they would run anyhow; but
#   then it passes over those whose inputs are ancient. Each run makes one link of a chain, and reports success.
#
# The script installs public packages in a temporary folder, makes a workflow of three jobs a -> b -> c, and ends with 1
# if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
nice -n 10 "$folder/venv/bin/pip" install --quiet snakemake==9.27.1
export HOME="$folder" XDG_CACHE_HOME="$folder/cache"
cat > "$folder/show.py" <<'PYTHON'
import re
import subprocess
import sys
from pathlib import Path

folder = Path(sys.argv[1])
program = folder / "venv" / "bin" / "snakemake"
WORKFLOW = """
rule all:
    input: "c.txt"
rule a:
    input: "start.txt"
    output: "a.txt"
    params: config["of_a"]
    shell: "echo {params} > {output}"
rule b:
    input: ancient("a.txt")
    output: "b.txt"
    params: config["of_b"]
    shell: "cat {input} > {output}; echo {params} >> {output}"
rule c:
    input: ancient("b.txt")
    output: "c.txt"
    params: config["of_c"]
    shell: "cat {input} > {output}; echo {params} >> {output}"
"""
print("snakemake", subprocess.check_output([program, "--version"], text=True).strip())


def workflow(name, text):
    """A folder in which the workflow has run once, with 1 for all params."""
    made = folder / name
    made.mkdir()
    (made / "Snakefile").write_text(text)
    (made / "start.txt").write_text("start\n")
    run(made, 1, 1, 1)
    return made


def run(at, *params, dry=False):
    """Rules of the jobs planned."""
    config = [f"of_{rule}={value}" for rule, value in zip("abc", params)]
    command = [program, "--cores", "1", *(["-n"] if dry else []), "--config", *config]
    done = subprocess.run(command, cwd=at, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"snakemake ended with {done.returncode}:\n{done.stderr}")
    output = done.stdout + done.stderr
    for job, reason in re.findall(r"^(?:local)?rule (\w+):$.*?^ +reason: ([^:\n]*)", output, re.M | re.S):
        print(f"    {'planned' if dry else 'ran'} {job}: {reason}")
    for line in re.findall(r"^.*100%.*$|^Nothing to be done.*$", output, re.M):
        print(f"    {line}")
    return sorted(set(re.findall(r"^(?:local)?rule (\w+):", output, re.M)))


print("first runs")
ancient = workflow("ancient", WORKFLOW)
usual = workflow("usual", re.sub(r"ancient\((.*)\)", r"\1", WORKFLOW))

print("params of c changed: expected a plan of all, c")
only_c = run(ancient, 1, 1, 2, dry=True)
print(f"  seen {only_c}")

print("params of a, b and c changed, no ancient(): expected a plan of a, all, b, c")
without = run(usual, 2, 2, 2, dry=True)
print(f"  seen {without}")

print("params of a, b and c changed, ancient(): expected the same plan, and then nothing to be done")
planned = run(ancient, 2, 2, 2, dry=True)
print(f"  seen {planned}")
runs = [run(ancient, 2, 2, 2) for _ in range(4)]
print(f"  seen in four runs {runs}")

print("c.txt missing, params of a changed: expected c.txt to be made, or an error")
(ancient / "c.txt").unlink()
last = run(ancient, 3, 2, 2)
made = (ancient / "c.txt").exists()
print(f"  seen {last}, exit status 0, c.txt {'made' if made else 'still missing'}")
again = run(ancient, 3, 2, 2)
made_again = (ancient / "c.txt").exists()
print(f"  seen in the same run again {again}, c.txt {'made' if made_again else 'still missing'}")

as_found = (
    only_c == ["all", "c"] and without == ["a", "all", "b", "c"] and planned == ["a"]
    and runs == [["a"], ["b"], ["all", "c"], []] and last == ["a"] and not made
    and again == ["all", "c"] and made_again
)
print("as found" if as_found else "the behaviour has changed")
sys.exit(not as_found)
PYTHON
nice -n 10 "$folder/venv/bin/python" "$folder/show.py" "$folder"
