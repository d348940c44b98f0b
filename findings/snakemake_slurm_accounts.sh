#!/usr/bin/env bash
# snakemake-executor-plugin-slurm 2.8.0 can neither guess an account, as it says it does, nor be told to leave it alone.
#
# Expected: without slurm_account the plugin reads the account of the user's last job from sacct; with --slurm-no-account
#   ("Do not use any account for submission") it does not look for one.
# Seen: the command with which it looks ends in "| tail -1", but no shell runs it: sacct gets "|", "tail" and "-1" as
#   arguments, and the real one refuses "-1" (invalid option), so that no account is ever found; the error is shown
#   to users whose site needs no account. And --slurm-no-account is declared but never read: it looks all the same.
#
# The script installs public packages in a temporary folder, puts a program called sacct on the PATH that writes down
# its arguments and prints an account, and ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet snakemake==9.27.1 snakemake-executor-plugin-slurm==2.8.0
export HOME="$folder" XDG_CACHE_HOME="$folder/cache" PATH="$folder/commands:$PATH"
mkdir "$folder/commands"
cat > "$folder/commands/sacct" <<SH
#!/bin/sh
printf '%s\n' "\$@" > "$folder/arguments"
echo physics
SH
printf '#!/bin/sh\necho physics\n' > "$folder/commands/sacctmgr"
chmod +x "$folder/commands/"*
cat > "$folder/show.py" <<'PYTHON'
import logging
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

from snakemake_executor_plugin_slurm import Executor, ExecutorSettings
from snakemake_executor_plugin_slurm.accounts import get_account

print("snakemake-executor-plugin-slurm", version("snakemake-executor-plugin-slurm"))
logger = logging.getLogger("plugin")
get_account(logger)
arguments = Path(sys.argv[1], "arguments").read_text().split("\n")[:-1]
print("expected of sacct: arguments -nu USER -o Account%256, its output cut by tail")
print("seen: its arguments end in", arguments[-3:])
settings = ExecutorSettings(no_account=True)
executor = SimpleNamespace(
    workflow=SimpleNamespace(executor_settings=settings), logger=logger, _fallback_account_arg=None
)
job = SimpleNamespace(resources={})
asked = next(Executor.get_account_arg(executor, job))
print(f"with no_account={settings.no_account}: expected no account, seen {asked!r}")
as_found = arguments[-3:] == ["|", "tail", "-1"] and asked.strip() == "-A physics"
print("as found" if as_found else "the behaviour has changed")
sys.exit(not as_found)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" "$folder"
