/*
 * Makes connections to itself at a steady rate, and measures what each costs.
 *
 *   connects CGROUP PORT RATE SECONDS
 *
 * It enters CGROUP, a folder of a cgroup2 hierarchy, first. Prints, in nanoseconds a connection: the median time of
 * connect(2) and accept(2) together, and the processor time of this process for all that it does.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int64_t now(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int ascending(const void *one, const void *two)
{
    int64_t a = *(const int64_t *)one, b = *(const int64_t *)two;
    return a < b ? -1 : a > b;
}

static _Noreturn void fail(const char *call)
{
    perror(call);
    exit(1);
}

int main(int argc, char **argv)
{
    char path[4096];
    int one = 1;
    struct linger reset = {.l_onoff = 1};
    struct sockaddr_in address = {.sin_family = AF_INET};

    if (argc != 5)
        return 64;
    snprintf(path, sizeof path, "%s/cgroup.procs", argv[1]);
    int members = open(path, O_WRONLY | O_CLOEXEC);
    if (members < 0 || write(members, "0", 1) != 1)
        fail(path);
    long rate = atol(argv[3]), count = rate * atol(argv[4]);
    int64_t *times = calloc((size_t)count, sizeof *times);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_port = htons((uint16_t)atoi(argv[2]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (!times || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 64) < 0)
        fail("listen");
    int64_t begin = now(CLOCK_MONOTONIC), processor = now(CLOCK_PROCESS_CPUTIME_ID);
    for (long i = 0; i < count; i++) {
        struct timespec due;
        int64_t at = begin + i * (1000000000LL / rate);
        due = (struct timespec){.tv_sec = at / 1000000000, .tv_nsec = at % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        int client = socket(AF_INET, SOCK_STREAM, 0);
        int64_t start = now(CLOCK_MONOTONIC);
        if (client < 0 || connect(client, (struct sockaddr *)&address, sizeof address) < 0)
            fail("connect");
        int server = accept(listener, NULL, NULL);
        times[i] = now(CLOCK_MONOTONIC) - start;
        if (server < 0)
            fail("accept");
        /* No TIME_WAIT is left. */
        setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(client);
        close(server);
    }
    processor = now(CLOCK_PROCESS_CPUTIME_ID) - processor;
    qsort(times, (size_t)count, sizeof *times, ascending);
    printf("%lld %lld\n", (long long)times[count / 2], (long long)(processor / count));
    return 0;
}
