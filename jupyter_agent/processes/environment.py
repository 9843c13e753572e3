"""What a child inherits from our environment: an allow-list, so that no token and no loader's switch slips through."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

TAG = "JUPYTER_AGENT_RUN"
"""The environment variable that marks a child and all that it starts."""

_BASICS = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TMP", "TEMP", "TERM")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy")
_LIBRARIES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
_WINDOWS = ("SYSTEMROOT", "SYSTEMDRIVE", "COMSPEC", "PATHEXT", "WINDIR", "APPDATA", "LOCALAPPDATA", "USERPROFILE")
_ALLOWED = frozenset(_BASICS + _CERTIFICATES + _PROXIES + _LIBRARIES + _WINDOWS)
_ALLOWED_PREFIXES = ("LC_", "XDG_", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "OPENBLAS_")
_BUILDERS_PREFIXES = ("UV_", "PIP_")
"""Settings of the package installers: which index, which cache, which certificates."""

_CREDENTIALS = re.compile(r"://[^/@\s]*:[^/@\s]*@")
_SECRET_NAME = re.compile(r"TOKEN|PASSWORD|SECRET|CREDENTIAL", re.IGNORECASE)


def inherited_environment(
    environ: Mapping[str, str] | None = None, *, builders: bool = True, credentials: bool = True
) -> dict[str, str]:
    """The part of ``environ`` (this process's when ``None``) that a child may have.

    Never ``jwt``, ``apiurl``, ``JUPYTER*``, ``PYTHON*`` or anything else that is not listed. ``builders`` adds the
    settings of uv and pip, which only a build needs. ``credentials=False`` leaves out what carries some: a proxy or
    an index with a password in its URL.
    """
    prefixes = _ALLOWED_PREFIXES + (_BUILDERS_PREFIXES if builders else ())
    chosen = {
        name: value
        for name, value in (os.environ if environ is None else environ).items()
        if name in _ALLOWED or name.startswith(prefixes)
    }
    if credentials:
        return chosen
    return {
        name: value
        for name, value in chosen.items()
        if not _CREDENTIALS.search(value) and not _SECRET_NAME.search(name)
    }
