"""What of a payload, or of the agent's document, may become environment variables of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What may be the name of an environment variable made of a payload's key."""

RESERVED = frozenset(
    {"APIURL", "JWT", "PAYLOADFILE", "HOME", "SHELL", "IFS", "ENV", "BASH_ENV", "TMPDIR", "TMP", "TEMP", "PS4"}
)
STEERING = (
    "PATH", "LD_", "DYLD_", "PYTHON", "NODE_", "NPM_", "PERL", "RUBY", "JAVA_", "JDK_", "_JAVA", "CLASSPATH", "DOTNET_",
    "COMPLUS_", "CORECLR_", "GIT_", "SSL_", "UV_", "PIP_", "CONDA_", "VIRTUAL_ENV", "JUPYTER", "IPYTHON", "MPLBACKEND",
    "LC_", "LANG", "MALLOC_", "GCONV_", "GLIBC_", "PHP", "PSMODULEPATH", "XDG_", "BASH", "OPENSSL_", "REQUESTS_CA",
    "CURL_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSLKEYLOGFILE", "LOCPATH", "HOSTALIASES", "R_HOME",
    "R_LIBS", "R_PROFILE", "R_ENVIRON", "CARGO_", "RUSTUP_", "RUSTC", "RUSTFLAGS", "COMPOSER_", "MAVEN_", "GRADLE_",
    "NUGET_", "MSBUILD", "POWERSHELL_", "GEM_HOME", "GEM_PATH", "BUNDLE_GEMFILE", "BUNDLE_PATH", "DENO_", "LUA_PATH",
    "LUA_CPATH", "LUA_INIT", "JULIA_LOAD", "JULIA_DEPOT", "JULIA_PROJECT", "MONO_PATH", "QT_PLUGIN", "QT_QPA",
    "GTK_MODULES", "GTK_PATH", "GIO_MODULE", "TSX_TSCONFIG", "APP_ROOT_PATH", "SHELLOPTS",
)  # fmt: skip
"""Prefixes, upper case, of variables that steer a loader, an interpreter or where secrets are sent."""

MAX_VARIABLE = 1 << 15
"""Characters of a value that is also given as an environment variable; longer ones are in the payload file alone."""

MAX_VARIABLES = 1 << 18
"""Characters of all of them together: the kernel bounds what a program may be started with."""


def harmless(values: Mapping[str, Any], taken: Mapping[str, str]) -> dict[str, str]:
    """The entries that may be environment variables: valid names that override nothing and steer no loader."""
    chosen: dict[str, str] = {}
    used = {name.upper() for name in taken}
    room = MAX_VARIABLES
    for name, value in values.items():
        upper = name.upper()
        if not NAME.fullmatch(name) or upper in used or upper in RESERVED or upper.startswith(STEERING):
            continue
        if isinstance(value, dict | list) and 2 * len(value) > MAX_VARIABLE:  # as JSON it is longer than that
            continue
        text = as_text(value)
        if "\0" in text or len(text) > MAX_VARIABLE or len(text) > room:
            continue
        room -= len(text)
        chosen[name] = text
    return chosen


def as_text(value: object) -> str:
    """A payload's value as an environment variable holds it: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
