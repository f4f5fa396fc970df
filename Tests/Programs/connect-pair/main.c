/*
 * Makes one connection to itself over the loopback interface, and prints the keepalive settings of both ends.
 *
 *   connect-pair CGROUP FAMILY CLIENT_PORT SERVER_PORT OWN
 *
 * It enters CGROUP first, a folder of a cgroup2 hierarchy; - is none. FAMILY is ipv4, ipv6 or mapped. Port 0 is any. OWN
 * is the end that turns keepalive on by itself before the connection is there: client, listener or none. client-times
 * and listener-times set its times to 30, 5 and 3 and do not turn it on.
 *
 * Two lines: "client ENABLED IDLE INTERVAL COUNT USER_TIMEOUT" and "server …".
 */
#include "keepalive.h"

#include <fcntl.h>

static void enter(const char *cgroup)
{
    char path[4096];

    if (strcmp(cgroup, "-") == 0)
        return;
    snprintf(path, sizeof path, "%s/cgroup.procs", cgroup);
    int members = open(path, O_WRONLY | O_CLOEXEC);
    if (members < 0 || write(members, "0", 1) != 1)
        fail("cgroup.procs");
    close(members);
}

static int bound(const char *family, int port, int keepalive, int times)
{
    int one = 1, zero = 0, is_ipv4 = strcmp(family, "ipv4") == 0;
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    int fd = socket(is_ipv4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        fail("socket");
    inet_pton(AF_INET, "127.0.0.1", &v4.sin_addr);
    inet_pton(AF_INET6, strcmp(family, "mapped") == 0 ? "::ffff:127.0.0.1" : "::1", &v6.sin6_addr);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (!is_ipv4)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    if (keepalive && setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one) < 0)
        fail("SO_KEEPALIVE");
    if (times) {
        int idle = 30, interval = 5, count = 3;
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    }
    if (bind(fd, is_ipv4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6, is_ipv4 ? sizeof v4 : sizeof v6) < 0)
        fail("bind");
    return fd;
}

int main(int argc, char **argv)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;

    if (argc != 6)
        usage("connect-pair CGROUP FAMILY CLIENT_PORT SERVER_PORT OWN");
    enter(argv[1]);
    int listener = bound(argv[2], atoi(argv[4]), strcmp(argv[5], "listener") == 0,
                         strcmp(argv[5], "listener-times") == 0);
    int client = bound(argv[2], atoi(argv[3]), strcmp(argv[5], "client") == 0,
                       strcmp(argv[5], "client-times") == 0);
    if (listen(listener, 1) < 0 || getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        fail("listen");
    if (connect(client, (struct sockaddr *)&address, length) < 0)
        fail("connect");
    int server = accept(listener, NULL, NULL);
    if (server < 0)
        fail("accept");
    say_keepalive("client ", client);
    say_keepalive("server ", server);
    return 0;
}
