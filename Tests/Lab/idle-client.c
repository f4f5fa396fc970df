/*
 * The client of alternatives.sh: one connection that is silent for a time, then sends a line.
 *
 *   idle-client ADDRESS PORT SECONDS [keepalive]
 *   idle-client serve ADDRESS PORT               the other end: echoes whatever comes, on any number of connections
 *
 * Prints "ready" when the connection is established and has echoed. After SECONDS it prints "saved" if an echo comes
 * back within 2 s, else "lost" and how the program notices it. It is plain C with few calls, so it can be built
 * dynamic, static and for 32 bits.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *echo_of(int connection, const char *word)
{
    char answer[64];
    struct pollfd waiting = {.fd = connection, .events = POLLIN};

    if (send(connection, word, strlen(word), MSG_NOSIGNAL) < 0)
        return strerror(errno);
    if (poll(&waiting, 1, 2000) == 0)
        return "silence";
    ssize_t count = recv(connection, answer, sizeof answer, 0);
    if (count < 0)
        return strerror(errno);
    return count == 0 ? "closed" : NULL;
}

static int serve(const char *address, const char *port)
{
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    char bytes[64];

    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (inet_pton(AF_INET, address, &own.sin_addr) != 1 || bind(listener, (struct sockaddr *)&own, sizeof own) < 0 ||
        listen(listener, 16) < 0) {
        perror("idle-client: serve");
        return 1;
    }
    for (;;) {
        int connection = accept(listener, NULL, NULL);
        if (connection < 0 || fork() > 0) {
            close(connection);
            continue;
        }
        for (ssize_t count; (count = recv(connection, bytes, sizeof bytes, 0)) > 0;)
            send(connection, bytes, (size_t)count, MSG_NOSIGNAL);
        _exit(0);
    }
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "serve") == 0)
        return serve(argv[2], argv[3]);
    int connection = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in peer = {.sin_family = AF_INET};

    if (argc < 4) {
        fputs("usage: idle-client ADDRESS PORT SECONDS [keepalive]\n", stderr);
        return 64;
    }
    peer.sin_port = htons((uint16_t)atoi(argv[2]));
    if (inet_pton(AF_INET, argv[1], &peer.sin_addr) != 1 ||
        connect(connection, (struct sockaddr *)&peer, sizeof peer) < 0) {
        perror("idle-client: connect");
        return 1;
    }
    if (argc > 4 && setsockopt(connection, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one) < 0) {
        perror("idle-client: SO_KEEPALIVE");
        return 1;
    }
    const char *reason = echo_of(connection, "hello\n");
    if (reason) {
        fprintf(stderr, "idle-client: the connection does not work to begin with: %s\n", reason);
        return 1;
    }
    puts("ready");
    fflush(stdout);
    sleep((unsigned)atoi(argv[3]));
    reason = echo_of(connection, "still there?\n");
    if (reason)
        printf("lost (%s)\n", reason);
    else
        puts("saved");
    return 0;
}
