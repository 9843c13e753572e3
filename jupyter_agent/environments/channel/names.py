"""conda's names for packages, and PyPI's. Most are the same; these are those that differ, by what they hold.

Names that only differ in ``-``, ``_``, ``.`` and case are the same to PyPI and need no line here.
"""

from __future__ import annotations

from packaging.utils import canonicalize_name

RENAMED: dict[str, str] = {
    "antlr-python-runtime": "antlr4-python3-runtime",
    "black-jupyter": "black[jupyter]",
    "brotli-python": "brotli",
    "dask-core": "dask",
    "faiss": "faiss-cpu",
    "geopandas-base": "geopandas",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "opencv": "opencv-python-headless",
    "psycopg2": "psycopg2-binary",
    "py-opencv": "opencv-python-headless",
    "py-xgboost": "xgboost",
    "py-xgboost-cpu": "xgboost",
    "pyarrow-core": "pyarrow",
    "pymc-base": "pymc",
    "pyqt": "pyqt5",
    "pysoundfile": "soundfile",
    "pytables": "tables",
    "python-annoy": "annoy",
    "python-build": "build",
    "python-clang": "libclang",
    "python-confluent-kafka": "confluent-kafka",
    "python-duckdb": "duckdb",
    "python-flatbuffers": "flatbuffers",
    "python-graphviz": "graphviz",
    "python-hdfs": "hdfs",
    "python-igraph": "igraph",
    "python-kaleido": "kaleido",
    "python-kubernetes": "kubernetes",
    "python-lmdb": "lmdb",
    "python-tzdata": "tzdata",
    "python-wget": "wget",
    "python-xxhash": "xxhash",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "pytorch_geometric": "torch-geometric",
    "ray-core": "ray",
    "ray-default": "ray[default]",
    "redis-py": "redis",
    "ruamel_yaml": "ruamel.yaml",
    "seaborn-base": "seaborn",
    "sqlalchemy-base": "sqlalchemy",
    "tensorflow-base": "tensorflow",
    "tensorflow-cpu": "tensorflow",
    "tensorflow-gpu": "tensorflow",
    "uvicorn-standard": "uvicorn[standard]",
}
"""conda's name to PyPI's, with the extras that make it the same."""

SUPPORT = frozenset(
    (
        *("_libgcc_mutex", "_openmp_mutex", "blas", "bzip2", "ca-certificates", "cpuonly", "expat", "icu"),
        *(
            "intel-openmp",
            "krb5",
            "ld_impl_linux-64",
            "ld_impl_linux-aarch64",
            "llvm-openmp",
            "lz4-c",
            "mkl",
            "ncurses",
        ),
        *("nomkl", "openblas", "openssl", "pytorch-cuda", "pytorch-mutex", "readline", "sqlite", "tbb", "tk", "xz"),
        *("yaml", "zlib", "zstd", "pthread-stubs", "freetype", "jpeg", "lcms2", "lerc", "zeromq", "xorg-libxau"),
        *("xorg-libxdmcp", "font-ttf-dejavu-sans-mono", "fonts-conda-forge", "keyutils", "c-ares", "snappy", "gmp"),
    )
)
"""Libraries below Python and its packages: wheels bring their own, and this Python uses the system's. So do names that
begin with ``lib``, but for ``PYTHON_LIB``. A package of that name in the channel is empty."""

PYTHON_LIB = ("libclang", "libcst", "librosa", "librt", "libsass", "libtmux", "libvirt-python", "libusb1", "libais")
"""Packages of PyPI with such a name."""

NOT_PYTHON = frozenset(
    (
        *("bash", "binutils", "boost", "boost-cpp", "c-compiler", "clang", "clangxx", "compilers", "conda"),
        *("conda-build", "coreutils", "cuda", "cudatoolkit", "cudnn", "curl", "cxx-compiler", "eigen", "ffmpeg"),
        *("fortran-compiler", "gcc", "gdal", "geos", "gfortran", "ghostscript", "git", "git-lfs", "go", "graphviz"),
        *("gsl", "gxx", "hdf5", "imagemagick", "jq", "julia", "llvm", "llvmdev", "make", "mamba", "maven"),
        *("micromamba", "mpich", "mysql", "nb_conda_kernels", "nccl", "nodejs", "openjdk", "openmpi", "pandoc"),
        *("parallel", "perl", "pkg-config", "poppler", "postgresql", "proj", "qt", "qt-main", "redis", "redis-server"),
        *("rsync", "ruby", "rust", "tectonic", "tesseract", "texlive-core", "tmux", "udunits2", "unzip", "vim"),
        *("wget", "xeus", "xeus-cling", "xeus-r", "yarn", "zip", "zsh"),
    )
)
"""Programs and libraries that PyPI does not have, or has something else by that name."""

NOT_PYTHON_BEGINNINGS = (
    "r-",
    "bioconductor-",
    "perl-",
    "gcc_",
    "gxx_",
    "gfortran_",
    "cuda-",
    "ocaml-",
    "ghc-",
    "xorg-",
)


def pypi_name(name: str) -> str:
    """What PyPI calls the conda package ``name``, with extras where it takes those to be the same."""
    return RENAMED.get(name) or canonicalize_name(name)


def is_support(name: str) -> bool:
    """Whether it is a library that comes with wheels or with the system."""
    return name in SUPPORT or (name.startswith("lib") and canonicalize_name(name) not in PYTHON_LIB)


def is_not_python(name: str) -> bool:
    """Whether PyPI cannot have it."""
    return name in NOT_PYTHON or (name.startswith(NOT_PYTHON_BEGINNINGS) and name not in SUPPORT)
