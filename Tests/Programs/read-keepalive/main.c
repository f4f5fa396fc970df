/*
 * Prints the real keepalive settings of sockets in another process. It asks the kernel without sockalive.
 *
 *   read-keepalive PID FD…
 *
 * A line each: "ENABLED IDLE INTERVAL COUNT USER_TIMEOUT". Needs Linux 5.6 and the right to trace PID.
 */
#include "keepalive.h"

#include <sys/syscall.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

int main(int argc, char **argv)
{
    if (argc < 3)
        usage("read-keepalive PID FD...");
    long process = syscall(SYS_pidfd_open, atoi(argv[1]), 0);
    if (process < 0)
        fail("pidfd_open");
    for (int i = 2; i < argc; i++) {
        int fd = (int)syscall(SYS_pidfd_getfd, process, atoi(argv[i]), 0);
        if (fd < 0)
            fail("pidfd_getfd");
        say_keepalive("", fd);
        close(fd);
    }
    return 0;
}
