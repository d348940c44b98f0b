"""Command line of the config.

``python -m learning_geometry.config check FILE...`` validates config files, merged in order, and prints what
they ask for; ``python -m learning_geometry.config readme`` prints config/README.md, and ``... needs`` the tables of
CONTRIBUTING.md.
"""

import argparse
import sys
from collections.abc import Sequence

from learning_geometry.config import ConfigError, load, needs_tables, plan, readme


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m learning_geometry.config", description="Check config files.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="validate config files, merged in order, and print the plan")
    check.add_argument("files", nargs="+", metavar="FILE")
    commands.add_parser("readme", help="print config/README.md")
    commands.add_parser("needs", help="print what measurements need and tasks give, the tables of CONTRIBUTING.md")
    options = parser.parse_args(arguments)
    try:
        if options.command == "check":
            print(plan(load(options.files)))
        else:
            print(readme() if options.command == "readme" else needs_tables(), end="")
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
