"""The work of `sockalive inject` in 30 lines, as an administrator would write it."""
import ctypes
import glob
import os
import socket

PIDFD_GETFD = 438
libc = ctypes.CDLL(None, use_errno=True)

for path in glob.glob("/proc/[0-9]*"):
    try:
        with open(path + "/comm") as file:
            if file.read() != "beremote\n":
                continue
        pidfd = os.pidfd_open(int(path[6:]))
        for number in os.listdir(path + "/fd"):
            if not os.readlink(f"{path}/fd/{number}").startswith("socket:"):
                continue
            duplicate = libc.syscall(PIDFD_GETFD, pidfd, int(number), 0)
            if duplicate < 0:
                continue
            with socket.socket(fileno=duplicate) as connection:
                if connection.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                if 5633 in (connection.getsockname()[1], connection.getpeername()[1]):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 60)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 50)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 600)
        os.close(pidfd)
    except OSError:
        continue
