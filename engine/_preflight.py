"""Can openmar be built here? One line that says what to install, if not. Runs before anything is installed.

Only the standard library, and syntax that old Pythons can read: an old Python is one of the things it finds.
"""

import os
import shutil
import sys
import sysconfig

LEAST = (3, 11)


def missing() -> "list[tuple[str, str]]":
    """What is missing, as (in words, Debian package)."""
    found = []
    try:
        __import__("ensurepip")
        __import__("venv")
    except ImportError:
        found.append(("the venv module", "python3-venv"))
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        found.append(("the Python headers", "python3-dev"))
    if not (shutil.which(os.environ.get("CC") or "gcc") or shutil.which("cc")):
        found.append(("a C compiler", "gcc"))
    elif not os.path.exists("/usr/include/stdio.h") and not shutil.which("xcrun"):
        found.append(("the C library headers", "libc6-dev"))
    return found


def main() -> "str | int":
    """Exit code 0: it can be built."""
    if sys.version_info < LEAST:
        return "openmar: Python %d.%d is too old: install Python 3.11 or newer, and name it: make PYTHON=python3.11" % (
            sys.version_info[:2]
        )
    found = missing()
    if not found:
        return 0
    what = " and ".join(words for words, _ in found)
    packages = " ".join(package for _, package in found)
    return "openmar: %s not found: apt install %s" % (what, packages)


if __name__ == "__main__":
    sys.exit(main())
