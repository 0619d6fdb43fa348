"""Build the compiled parts of openmar: one Extension for each engine/_fast/*.pyx, and the cffi module engine._sys.

Metadata lives in pyproject.toml. Everything is built against the limited API: one wheel serves every Python from 3.11.
"""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

LIMITED_API = "0x030B0000"  # Python 3.11

extensions = [
    Extension(
        ".".join(source.with_suffix("").parts),
        [str(source)],
        define_macros=[("Py_LIMITED_API", LIMITED_API), ("_GNU_SOURCE", None)],
        extra_compile_args=["-O3", "-g0"],
        py_limited_api=True,
    )
    for source in sorted(Path("engine/_fast").glob("*.pyx"))
]

setup(
    ext_modules=cythonize(extensions, build_dir="build/cython", language_level=3),
    cffi_modules=["engine/_sys_build.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
