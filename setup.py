"""Build the compiled parts of openmar: one Extension for each engine/_fast/*.pyx, and the cffi module engine._sys.

Metadata lives in pyproject.toml. Everything is built against the limited API: one wheel serves every Python from 3.11.
OPENMAR_SANITIZE=1 builds a packet path that watches its own memory and arithmetic, in build/sanitize: `make sanitize`.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

LIMITED_API = "0x030B0000"  # Python 3.11
OPTIMISED = ["-O3", "-g0"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
WATCHED = [*SANITIZERS, "-O1", "-g", "-fno-omit-frame-pointer"]
sanitize = bool(os.environ.get("OPENMAR_SANITIZE"))

extensions = [
    Extension(
        ".".join(source.with_suffix("").parts),
        [str(source)],
        define_macros=[("Py_LIMITED_API", LIMITED_API), ("_GNU_SOURCE", None)],
        extra_compile_args=WATCHED if sanitize else OPTIMISED,
        extra_link_args=SANITIZERS if sanitize else [],
        py_limited_api=True,
    )
    for source in sorted(Path("engine/_fast").glob("*.pyx"))
]

options = {"bdist_wheel": {"py_limited_api": "cp311"}, "build_ext": {"parallel": os.cpu_count()}}
if sanitize:
    options["build"] = {"build_base": "build/sanitize"}  # neither is taken for the other

setup(
    ext_modules=cythonize(extensions, build_dir="build/cython", language_level=3),
    cffi_modules=["engine/_sys_build.py:ffi"],
    options=options,
)
