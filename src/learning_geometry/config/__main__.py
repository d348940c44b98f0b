"""Command line of the config.

``python -m learning_geometry.config check FILE...`` validates config files, merged in order, and prints what
they ask for; the first may extend another (``extends``). ``python -m learning_geometry.config readme`` prints
config/README.md, ``... schema`` config/schema.json, for editors, and ``... needs`` the tables of CONTRIBUTING.md.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from learning_geometry.config import ConfigError, load, needs_tables, plan, readme
from learning_geometry.config.editors import editor_text
from learning_geometry.config.needs_tables import write_needs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m learning_geometry.config", description="Check config files.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="validate config files, with what they extend, and print the plan")
    check.add_argument(
        "files", nargs="+", metavar="FILE", help="YAML, laid over each other in order; `extends: FILE` in it"
    )
    commands.add_parser("readme", help="print config/README.md")
    commands.add_parser("schema", help="print config/schema.json, a JSON Schema for editors")
    needs = commands.add_parser("needs", help="print what measurements need and tasks give")
    needs.add_argument("--into", metavar="FILE", help="write it between the two marks of a file, CONTRIBUTING.md")
    options = parser.parse_args(arguments)
    try:
        texts: dict[str, Callable[[], str]] = {"readme": readme, "schema": editor_text, "needs": needs_tables}
        text = f"{plan(load(options.files))}\n" if options.command == "check" else texts[options.command]()
        if options.command == "needs" and options.into:
            write_needs(options.into)
        else:
            print(text, end="")
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
