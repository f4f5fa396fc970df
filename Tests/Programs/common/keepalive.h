/* Shared by the test programs: the real keepalive settings of a socket. */
#ifndef KEEPALIVE_H
#define KEEPALIVE_H

#include "sessions.h"

#include <netinet/tcp.h>

static int option(int fd, int level, int name)
{
    int value = 0;
    socklen_t length = sizeof value;

    if (getsockopt(fd, level, name, &value, &length) < 0)
        fail("getsockopt");
    return value;
}

/* Behind the prefix: "ENABLED IDLE INTERVAL COUNT USER_TIMEOUT" */
static void say_keepalive(const char *prefix, int fd)
{
    say("%s%d %d %d %d %d", prefix, option(fd, SOL_SOCKET, SO_KEEPALIVE), option(fd, IPPROTO_TCP, TCP_KEEPIDLE),
        option(fd, IPPROTO_TCP, TCP_KEEPINTVL), option(fd, IPPROTO_TCP, TCP_KEEPCNT),
        option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT));
}

#endif
