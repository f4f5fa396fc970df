/* A sock_diag socket, and the namespace that it is made in: setns(2) is a GNU extension. */
#include "CSockalive.h"

#include <errno.h>
#include <linux/netlink.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

int sockalive_enter_network(int netns)
{
    return setns(netns, CLONE_NEWNET) < 0 ? -errno : 0;
}

int sockalive_diag_socket(void)
{
    /* Connected to port 0: nobody but the kernel can answer. */
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

    if (fd >= 0 && connect(fd, (struct sockaddr *)&kernel, sizeof kernel) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd < 0 ? -errno : fd;
}
