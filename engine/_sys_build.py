"""Builds engine._sys (cffi, API mode): kernel numbers the standard library lacks, calls that make namespaces.

Numbers come from the system's headers; where those are older than the kernel, from the fallbacks below.
The packet path does not need this module.
"""

from cffi import FFI  # type: ignore[import-untyped]

CONSTANTS = {
    # TUN (linux/if_tun.h)
    "TUNSETIFF": 0x400454CA,
    "TUNGETIFF": 0x800454D2,
    "TUNSETPERSIST": 0x400454CB,
    "TUNSETOFFLOAD": 0x400454D0,
    "TUNSETVNETHDRSZ": 0x400454D8,
    "TUNSETQUEUE": 0x400454D9,
    "IFF_TUN": 0x0001,
    "IFF_NO_PI": 0x1000,
    "IFF_MULTI_QUEUE": 0x0100,
    "IFF_VNET_HDR": 0x4000,
    "IFF_TUN_EXCL": 0x8000,
    "IFF_NAPI": 0x0010,
    "IFF_ATTACH_QUEUE": 0x0200,
    "IFF_DETACH_QUEUE": 0x0400,
    "TUN_F_CSUM": 0x01,
    "TUN_F_TSO4": 0x02,
    "TUN_F_TSO6": 0x04,
    "TUN_F_TSO_ECN": 0x08,
    "TUN_F_USO4": 0x20,
    "TUN_F_USO6": 0x40,
    # sockets (linux/in6.h, linux/socket.h, linux/udp.h)
    "SO_SNDBUFFORCE": 32,
    "SO_RCVBUFFORCE": 33,
    "IPV6_MTU_DISCOVER": 23,
    "IPV6_MTU": 24,
    "IPV6_RECVERR": 25,
    "IPV6_FLOWINFO_SEND": 33,
    "IPV6_HDRINCL": 36,
    "IPV6_RECVPKTINFO": 49,
    "IPV6_DONTFRAG": 62,
    "IPV6_RECVTCLASS": 66,
    "IPV6_TCLASS": 67,
    "IPV6_AUTOFLOWLABEL": 70,
    "IPV6_TRANSPARENT": 75,
    "IPV6_FREEBIND": 78,
    "IPV6_PMTUDISC_DONT": 0,
    "IPV6_PMTUDISC_WANT": 1,
    "IPV6_PMTUDISC_DO": 2,
    "IPV6_PMTUDISC_PROBE": 3,
    "UDP_SEGMENT": 103,
    "UDP_GRO": 104,
    # namespaces and mounts (linux/sched.h, linux/mount.h, linux/prctl.h)
    "CLONE_NEWNET": 0x40000000,
    "CLONE_NEWUSER": 0x10000000,
    "CLONE_NEWNS": 0x00020000,
    "CLONE_NEWPID": 0x20000000,
    "CLONE_NEWUTS": 0x04000000,
    "CLONE_NEWIPC": 0x08000000,
    "MS_RDONLY": 0x1,
    "MS_NOSUID": 0x2,
    "MS_NODEV": 0x4,
    "MS_NOEXEC": 0x8,
    "MS_BIND": 0x1000,
    "MS_REC": 0x4000,
    "MS_PRIVATE": 0x40000,
    "MS_SLAVE": 0x80000,
    "MS_SHARED": 0x100000,
    "MNT_DETACH": 0x2,
    "PR_SET_PDEATHSIG": 1,
    "PR_SET_DUMPABLE": 4,
    "PR_SET_NAME": 15,
    "PR_SET_NO_NEW_PRIVS": 38,
}

HEADERS = (
    "errno.h",
    "sched.h",
    "sys/mount.h",
    "sys/prctl.h",
    "sys/socket.h",
    "netinet/in.h",
    "netinet/udp.h",
    "linux/if_tun.h",
)

CALLS = """
int unshare(int flags);
int setns(int fd, int nstype);
int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data);
int umount2(const char *target, int flags);
int openmar_prctl(int option, unsigned long arg2, unsigned long arg3, unsigned long arg4, unsigned long arg5);
"""

# prctl() is variadic, and cffi would want every argument cast: a plain signature is easier to call.
SOURCE = """
static int openmar_prctl(int option, unsigned long a2, unsigned long a3, unsigned long a4, unsigned long a5)
{ return prctl(option, a2, a3, a4, a5); }
"""

# MS_* and MNT_DETACH are enumerators in glibc, not macros, so #ifndef cannot see them; every libc has them.
ENUMERATORS = ("MS_", "MNT_", "IPV6_PMTUDISC_")


def fallbacks() -> str:
    """C text defining each number the headers do not."""
    return "\n".join(
        f"#ifndef {name}\n#define {name} {number:#x}\n#endif"
        for name, number in CONSTANTS.items()
        if not name.startswith(ENUMERATORS)
    )


ffi = FFI()
ffi.cdef("\n".join(f"#define {name} ..." for name in CONSTANTS) + CALLS)
ffi.set_source(
    "engine._sys",
    "\n".join([*(f"#include <{header}>" for header in HEADERS), fallbacks(), SOURCE]),
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
