#!/usr/bin/env bash
# Installs what the tests need and runs them all: lint, types, layers, front end, Python tests, browser tests.
# Needs Python 3.11 and Node 20; installs Debian's Chromium where it may (root and apt). Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
say() { printf '\n== %s\n' "$*"; }

say "Python packages"
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check ".[test]"
export PATH="$PWD/$venv/bin:$PATH"

say "Browser, official clients, a second opinion on queries"
if ! command -v chromium >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium) \
    >/dev/null 2>&1 || true  # what is missing is told below
fi
command -v chromium || { echo "The browser tests need Chromium: install Debian's package chromium." >&2; exit 1; }
for folder in ui interop differential; do (cd "tests/$folder" && npm ci --silent --no-audit --no-fund); done

say "Lint, types, layers"
ruff check .
ruff format --check --quiet .
mypy
lint-imports --no-cache

say "Front end"
(cd labextension && jlpm install --immutable >/dev/null && jlpm lint && jlpm test)

say "Tests"
exec pytest "$@"
