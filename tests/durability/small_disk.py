"""A process that mounts a small disk of its own, in a namespace that needs no privileges, and starts servers on it.

It reads commands, one a line: `serve DATA LOG` (answered with a process id), `state PID`, `stop PID`. The disk ends
with it. Others see it below `/proc/PID/root`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

_NEW_MOUNTS = 0x00020000
_NEW_USER = 0x10000000


def _call(library: ctypes.CDLL, name: str, *arguments: object) -> None:
    if getattr(library, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def mounted(point: str, options: str, *, user: int, group: int) -> bool:
    """Mounts a disk in a namespace of this process's own, and prints `ready`, or why it cannot be.

    Args:
        point: Where.
        options: Of the file system, such as `size=8m`.
        user: Whom this process's user is taken for inside.
        group: The same of its group.
    """
    maps = (("setgroups", "deny"), ("uid_map", f"{user} {os.getuid()} 1"), ("gid_map", f"{group} {os.getgid()} 1"))
    library = ctypes.CDLL(None, use_errno=True)
    try:
        _call(library, "unshare", _NEW_USER | _NEW_MOUNTS)
        for name, text in maps:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        _call(library, "mount", b"none", os.fsencode(point), b"tmpfs", 0, options.encode())
    except OSError as error:
        print(f"not run: no disk can be mounted here without privileges ({error.strerror or error})", flush=True)
        return False
    print("ready", flush=True)
    return True


def main() -> None:
    """Makes a disk (`MOUNT_POINT SIZE`) and serves the commands."""
    point, size = sys.argv[1:]
    if not mounted(point, f"size={size}", user=0, group=0):
        return
    servers: dict[int, subprocess.Popen[bytes]] = {}
    for line in sys.stdin:
        order, *rest = line.split()
        if order == "serve":
            data, log = rest
            command = [sys.executable, "-m", "memos_server", "serve", "--data", data, "--listen", "127.0.0.1:0"]
            with open(log, "ab") as output:
                server = subprocess.Popen(command, stdout=output, stderr=output)
            servers[server.pid] = server
            print(server.pid, flush=True)
        elif order == "stop":
            server = servers[int(rest[0])]
            server.send_signal(signal.SIGTERM)
            print(server.wait(), flush=True)
        else:
            print("running" if servers[int(rest[0])].poll() is None else "ended", flush=True)
    for server in servers.values():
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
