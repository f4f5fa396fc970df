/*
 * Holds both ends of a TCP connection over the loopback until it is killed.
 *
 *   self-connected PORT
 *
 * Prints "ready PID" when the connection is there. It needs nothing but /proc, so a container without a system runs it.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void must(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    int on = 1;

    if (argc != 2) {
        fprintf(stderr, "usage: self-connected PORT\n");
        return 64;
    }
    address.sin_port = htons((unsigned short)atoi(argv[1]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    must(bind(listener, (struct sockaddr *)&address, sizeof address), "bind");
    must(listen(listener, 1), "listen");
    must(connect(client, (struct sockaddr *)&address, sizeof address), "connect");
    must(accept(listener, NULL, NULL), "accept");
    close(listener);
    printf("ready %d\n", getpid());
    fflush(stdout);
    for (;;)
        pause();
}
