"""The parts of conda_lock that are used here. They are its internals: the version is pinned, and they meet here alone.

Its import warns of its own old parts; nobody who uses us can do anything about that.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from conda_lock._vendor.conda.models.match_spec import MatchSpec  # noqa: TID251 - see above
    from conda_lock.models.channel import Channel  # noqa: TID251 - see above
    from conda_lock.models.lock_spec import (  # noqa: TID251 - see above
        Dependency,
        LockSpecification,
        PathDependency,
        URLDependency,
        VCSDependency,
        VersionedDependency,
    )
    from conda_lock.src_parser.markers import evaluate_marker  # noqa: TID251 - see above
    from conda_lock.src_parser.pyproject_toml import (  # noqa: TID251 - see above
        parse_poetry_pyproject_toml,
        parse_python_requirement,
        parse_requirements_pyproject_toml,
    )
    from conda_lock.src_parser.pyproject_toml import (  # noqa: TID251 - see above
        specification_with_dependencies as own_section,
    )

__all__ = [
    "Channel",
    "Dependency",
    "LockSpecification",
    "MatchSpec",
    "PathDependency",
    "URLDependency",
    "VCSDependency",
    "VersionedDependency",
    "evaluate_marker",
    "own_section",
    "parse_poetry_pyproject_toml",
    "parse_python_requirement",
    "parse_requirements_pyproject_toml",
]
