"""Command line of the config.

``python -m learning_geometry.config check FILE...`` validates config files, merged in order, and prints what
they ask for; ``python -m learning_geometry.config readme`` prints config/README.md.
"""

import argparse
import sys
from collections.abc import Sequence

from learning_geometry.config import ConfigError, load, plan, readme


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m learning_geometry.config", description="Check config files.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="validate config files, merged in order, and print the plan")
    check.add_argument("files", nargs="+", metavar="FILE")
    commands.add_parser("readme", help="print config/README.md")
    options = parser.parse_args(arguments)
    try:
        print(plan(load(options.files)) if options.command == "check" else readme(), end="")
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    if options.command == "check":
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
