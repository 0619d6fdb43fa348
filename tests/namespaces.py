"""Whether hosts of network namespaces with TUN devices can be made on this machine."""

from router.demo.lab import LabError, available, check_tun


def why_no_lab() -> str | None:
    """Why not; None: they can."""
    try:
        check_tun()
    except LabError as error:
        return str(error)
    return available()
