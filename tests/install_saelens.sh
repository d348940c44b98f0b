#!/bin/sh
# SAELens for the slow test, in an environment of its own, as it brings a hundred packages: nothing to do if it is there.
set -eu
cd "$(dirname "$0")/.."

VERSION=6.54.12
TORCH=$(sed -n 's/^torch==//p' requirements.txt)
PLACE=.venv-saelens

installed() { "$PLACE/bin/python" -c "from importlib.metadata import version; assert version('sae-lens') == '$VERSION'"; }

if [ -x "$PLACE/bin/python" ] && installed 2>/dev/null; then exit 0; fi

echo "Installing SAELens $VERSION into $PLACE: the slow tests train dictionaries with it."
if .venv/bin/python -m venv "$PLACE" &&
    # shellcheck disable=SC2086
    "$PLACE/bin/python" -m pip install --quiet --disable-pip-version-check ${PIP_FLAGS:-} \
        "sae-lens==$VERSION" "torch==$TORCH" && installed; then exit 0; fi

echo "SAELens $VERSION could not be installed into $PLACE: see what pip says above, and try again." >&2
exit 1
