"""Command line that verifies the artifacts of a config.

``python -m learning_geometry.check [--configfile FILE...] [--remove]`` reads every artifact that the config asks for
and compares it with its digests, with the settings and with the code. It names what is not as it should be and why, and
says what takes the disk. ``--remove`` deletes what a next run must make anew, and nothing else. It exits with status 1
if anything that is there is damaged or not up to date, and stays.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from learning_geometry.config import ConfigError, load
from learning_geometry.fingerprint import PACKAGE
from learning_geometry.planning.check import report
from learning_geometry.planning.plan import Plan

SCRIPTS = PACKAGE.parents[1] / "workflow/scripts"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m learning_geometry.check", description="Verify artifacts.")
    parser.add_argument("--configfile", nargs="+", default=["config/config.yaml"], metavar="FILE", help="YAML, merged")
    parser.add_argument("--results", help="instead of the config's `results`")
    parser.add_argument("--remove", action="store_true", help="delete what a next run must make anew")
    parser.add_argument("--scripts", default=str(SCRIPTS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        config = load(options.configfile, {"results": options.results} if options.results else None)
        lines, sound = report(Plan(config, Path(options.scripts)), options.remove)
    except (ConfigError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0 if sound or options.remove else 1


if __name__ == "__main__":
    sys.exit(main())
