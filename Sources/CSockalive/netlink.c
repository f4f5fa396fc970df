/* A sock_diag socket in a network namespace: setns(2) is a GNU extension, and belongs to a thread. */
#include "CSockalive.h"

#include <errno.h>
#include <linux/netlink.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

struct opening {
    int netns;
    int result;
};

/* A netlink socket stays in the namespace where it was made, whoever uses it (netlink(7)). */
static void open_diag(void *context)
{
    struct opening *opening = context;

    if (opening->netns >= 0 && setns(opening->netns, CLONE_NEWNET) < 0) {
        opening->result = -errno;
        return;
    }
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    /* Connected to port 0: nobody but the kernel can answer. */
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    if (fd >= 0 && connect(fd, (struct sockaddr *)&kernel, sizeof kernel) < 0) {
        opening->result = -errno;
        close(fd);
        return;
    }
    opening->result = fd < 0 ? -errno : fd;
}

int sockalive_diag_socket(int netns)
{
    struct opening opening = {.netns = netns};

    if (netns < 0) {
        open_diag(&opening);
        return opening.result;
    }
    /* The thread ends in the foreign namespace; this one never enters it. */
    int status = sockalive_on_own_thread(open_diag, &opening);
    return status < 0 ? status : opening.result;
}
