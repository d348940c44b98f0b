#!/bin/sh
# The browser of `make test-slow`: nothing to do if it is there, else Debian's packages.
set -eu

found() { command -v chromium >/dev/null && command -v chromedriver >/dev/null; }

if found; then exit 0; fi

as_root=
if [ "$(id -u)" -ne 0 ]; then as_root=sudo; fi

if command -v apt-get >/dev/null && { [ -z "$as_root" ] || command -v sudo >/dev/null; }; then
    echo "Installing Debian's chromium and chromium-driver: the slow tests open the report in a browser."
    if $as_root apt-get update -q && $as_root apt-get install -y -q chromium chromium-driver && found; then exit 0; fi
fi

echo "The slow tests open the report in a browser: put the programs 'chromium' and 'chromedriver', of the same" >&2
echo "version, on PATH (on Debian: apt-get install chromium chromium-driver, as root), and try again." >&2
exit 1
