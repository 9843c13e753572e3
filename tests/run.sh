#!/usr/bin/env bash
# Installs what the tests need and runs them all: lint, types, layers, front end, Python tests, browser tests.
# Needs Python 3.11 and Node 20; installs Debian's Chromium, cargo, JDK, PHP, zsh, fish where it may.
# Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
say() { printf '\n== %s\n' "$*"; }

say "Python packages"
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check ".[test]"
export PATH="$PWD/$venv/bin:$PATH"

say "Browser, compilers, shells, official clients, a second opinion on queries"
lacking() {
  for program in chromium zsh fish; do command -v "$program" >/dev/null || echo "$program"; done
  cargo --version >/dev/null 2>&1 || echo cargo
  javac -version >/dev/null 2>&1 || echo default-jdk-headless
  php --version >/dev/null 2>&1 || echo php-cli
}
wanted=$(lacking)
if [ -n "$wanted" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  # shellcheck disable=SC2086 - one word a package
  (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $wanted) \
    >/dev/null 2>&1 || true  # what is missing is told below
fi
wanted=$(lacking)
[ -z "$wanted" ] || { echo "The tests need Debian's packages ${wanted//$'\n'/, }: install them." >&2; exit 1; }
for folder in ui interop differential; do (cd "tests/$folder" && npm ci --silent --no-audit --no-fund); done

say "Lint, types, layers"
ruff check .
ruff format --check --quiet .
mypy
lint-imports --no-cache

say "Front end"
(cd labextension && jlpm install --immutable >/dev/null && jlpm lint && jlpm test)

say "Tests"
exec pytest --numprocesses 2 --dist loadfile "$@"
