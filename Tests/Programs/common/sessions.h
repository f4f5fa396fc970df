/*
 * Shared by the test programs: TCP sessions by number, and lines on standard output. On an error a program prints
 * "failed CALL: REASON" and exits with 1.
 */
#ifndef SESSIONS_H
#define SESSIONS_H

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SESSIONS_MAX 4096

/* Of the sockets that connect: IPPROTO_MPTCP where a program asks for it. */
static int session_protocol;
/* The port that they are bound to; 0 leaves it to the kernel. */
static int session_local_port;

static inline void say(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

_Noreturn static inline void fail(const char *call)
{
    say("failed %s: %s", call, strerror(errno));
    _exit(1);
}

_Noreturn static inline void usage(const char *text)
{
    fprintf(stderr, "usage: %s\n", text);
    exit(64);
}

/*
 * The address decides the family: "127.0.0.1", "::1", "::ffff:127.0.0.1" (an IPv6 socket that carries IPv4),
 * "fe80::1%eth0".
 */
static inline socklen_t parse_address(const char *words, int port, struct sockaddr_storage *out)
{
    char text[INET6_ADDRSTRLEN + IFNAMSIZ];
    char *interface = text;
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

    memset(out, 0, sizeof *out);
    snprintf(text, sizeof text, "%s", words);
    strsep(&interface, "%");
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        return sizeof *v4;
    }
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        v6->sin6_scope_id = interface ? if_nametoindex(interface) : 0;
        return sizeof *v6;
    }
    errno = EINVAL;
    fail("inet_pton");
}

static inline int local_port(int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;

    if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        fail("getsockname");
    return ntohs(address.ss_family == AF_INET ? ((struct sockaddr_in *)&address)->sin_port
                                              : ((struct sockaddr_in6 *)&address)->sin6_port);
}

static inline int open_session(const struct sockaddr_storage *address, socklen_t length)
{
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, session_protocol);

    if (session_local_port) {
        int one = 1;
        struct sockaddr_in6 local = {.sin6_family = address->ss_family, .sin6_port = htons(session_local_port)};

        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(fd, (struct sockaddr *)&local, address->ss_family == AF_INET ? 16 : sizeof local) < 0)
            fail("bind");
    }
    if (fd < 0 || connect(fd, (const struct sockaddr *)address, length) < 0)
        fail("connect");
    return fd;
}

/* Prints "listening PORT". With port 0 the kernel chooses one. */
static inline int open_listener(const struct sockaddr_storage *address, socklen_t length)
{
    int one = 1;
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (const struct sockaddr *)address, length) < 0 || listen(fd, SESSIONS_MAX) < 0)
        fail("listen");
    say("listening %d", local_port(fd));
    return fd;
}

/* connect|listen ADDRESS PORT [COUNT]: fills fds and returns their count; -1 if the arguments are wrong. */
static inline int open_sessions(int argc, char **argv, int *fds)
{
    struct sockaddr_storage address;
    int count = argc > 3 ? atoi(argv[3]) : 1;

    if (argc < 3 || argc > 4 || count < 1 || count > SESSIONS_MAX)
        return -1;
    socklen_t length = parse_address(argv[1], atoi(argv[2]), &address);
    if (strcmp(argv[0], "connect") == 0) {
        for (int i = 0; i < count; i++)
            fds[i] = open_session(&address, length);
        return count;
    }
    if (strcmp(argv[0], "listen") != 0)
        return -1;
    int listener = open_listener(&address, length);
    for (int i = 0; i < count; i++) {
        if ((fds[i] = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
            fail("accept");
    }
    return count;
}

static inline void write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = send(fd, bytes, length, MSG_NOSIGNAL);
        if (n < 0)
            fail("send");
        bytes += n;
        length -= (size_t)n;
    }
}

#endif
