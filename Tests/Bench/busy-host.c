/*
 * A busy host for the benchmark.
 *
 *   busy-host peer                                      accepts on ports 1521 to 1536 and 5633 for ever
 *   busy-host host ADDRESS PROCESSES CONNECTIONS TARGETS
 *       PROCESSES processes with CONNECTIONS connections each to port 1521 of ADDRESS; the first TARGETS of them are
 *       called beremote and have up to four of their connections to port 5633
 *   busy-host large ADDRESS PROCESSES CONNECTIONS TARGETS NAMESPACE...
 *       PROCESSES processes and CONNECTIONS connections in all, spread over the network namespaces, whose files these
 *       are; the first TARGETS processes are called beremote and have four connections each, to port 5633
 *   busy-host many ADDRESS COUNT recv|poll|spin FILE
 *       one process beremote with COUNT connections to port 5633; it then sleeps, or spins and stores in the first 8
 *       bytes of FILE the longest time (ns) that it was stopped
 *
 * Prints "up" when all is established. Everything ends with the first process.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* One port of the peer has no more connections from one address than that has free ports: some 28,000. */
enum { other_port = 1521, other_ports = 16, target_port = 5633, sessions_of_a_target = 4 };
/* Of each port of the peer; the default of net.core.somaxconn. */
enum { queue = 4096 };

static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        err(1, "setrlimit");
}

static struct sockaddr_in address_of(const char *host, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

    if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
        errx(64, "%s is no IPv4 address", host);
    return address;
}

static pid_t fork_process(void)
{
    pid_t pid = fork();

    if (pid < 0)
        err(1, "fork");
    return pid;
}

static int connect_to(const char *host, int port)
{
    struct sockaddr_in address = address_of(host, port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        err(1, "connect to port %d", port);
    return fd;
}

static int listen_on(int port)
{
    struct sockaddr_in address = address_of("0.0.0.0", port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, queue) < 0)
        err(1, "listen on port %d", port);
    return fd;
}

static void say_up(void)
{
    puts("up");
    fflush(stdout);
}

_Noreturn static void peer(void)
{
    struct pollfd listeners[other_ports + 1];
    struct rlimit limit;
    int first;

    getrlimit(RLIMIT_NOFILE, &limit);
    for (int i = 0; i <= other_ports; i++) {
        listeners[i] = (struct pollfd){
            .fd = listen_on(i < other_ports ? other_port + i : target_port), .events = POLLIN};
        fcntl(listeners[i].fd, F_SETFL, O_NONBLOCK);
    }
    first = listeners[other_ports].fd + 1;
    say_up();
    for (;;) {
        poll(listeners, other_ports + 1, -1);
        for (int i = 0; i <= other_ports; i++) {
            int fd = listeners[i].revents ? accept(listeners[i].fd, NULL, NULL) : -1;
            pid_t next;

            if (fd < 0 && listeners[i].revents && errno != EAGAIN)
                err(1, "accept");
            if (fd < 0 || fd + 2 < (int)limit.rlim_cur)
                continue;
            /* This process has as many connections as it may have. Another one takes those that come. */
            next = fork_process();
            while (next > 0)
                pause();
            close_range(first, UINT_MAX, 0);
        }
    }
}

_Noreturn static void live(const char *name, const char *address, int connections, int matching, int ready)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, name);
    for (int i = 0; i < connections; i++)
        connect_to(address, i < matching ? target_port : other_port);
    if (write(ready, ".", 1) != 1)
        err(1, "write");
    close(ready);
    for (;;)
        pause();
}

/* The first ones are the targets. */
static const char *name_of(int number, int targets)
{
    static char name[16];

    snprintf(name, sizeof name, number < targets ? "beremote" : "worker_%d", number);
    return name;
}

/* A process has its connections. */
static void wait_for_one(int ready)
{
    char dot;

    if (read(ready, &dot, 1) != 1)
        err(1, "read");
}

_Noreturn static void host(const char *address, int processes, int connections, int targets)
{
    int ready[2];

    if (pipe(ready) < 0)
        err(1, "pipe");
    for (int i = 0; i < processes; i++) {
        if (fork_process() == 0) {
            close(ready[0]);
            live(name_of(i, targets), address, connections, i < targets ? sessions_of_a_target : 0, ready[1]);
        }
        /* One process at a time: the peer's queue is short. */
        wait_for_one(ready[0]);
    }
    say_up();
    for (;;)
        pause();
}

/* The connections to other ports of one process of the large host. */
static void connect_others(const char *address, int first, int count)
{
    for (int i = first; i < first + count; i++)
        connect_to(address, other_port + i % other_ports);
}

_Noreturn static void large(const char *address, int processes, int connections, int targets, int places, char **files)
{
    int ready[2], others = processes - targets, rest = connections - targets * sessions_of_a_target;
    /* So many processes connect at a time that the queues of the peer hold all that comes. */
    int most = 1 + others * (int64_t)(queue / 2) / (rest + others), coming = 0;

    if (others < 1 || rest < 0 || pipe(ready) < 0)
        errx(64, "%d processes with %d connections cannot have %d targets", processes, connections, targets);
    for (int place = 0; place < places; place++) {
        int file = open(files[place], O_RDONLY | O_CLOEXEC);

        if (file < 0 || setns(file, CLONE_NEWNET) < 0)
            err(1, "%s", files[place]);
        close(file);
        for (int i = place; i < processes; i += places) {
            if (fork_process() == 0) {
                close(ready[0]);
                if (i >= targets) {
                    /* Each has its part of the rest, and no two parts differ by more than one. */
                    int64_t from = (int64_t)rest * (i - targets) / others, to = (int64_t)rest * (i - targets + 1) / others;

                    connect_others(address, from, to - from);
                }
                live(name_of(i, targets), address, i < targets ? sessions_of_a_target : 0, sessions_of_a_target, ready[1]);
            }
            for (coming++; coming >= most; coming--)
                wait_for_one(ready[0]);
        }
    }
    for (; coming > 0; coming--)
        wait_for_one(ready[0]);
    say_up();
    for (;;)
        pause();
}

static uint64_t nanoseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

_Noreturn static void spin(const char *file)
{
    int fd = open(file, O_RDWR | O_CREAT, 0600);
    volatile uint64_t *longest;
    uint64_t last, now;

    if (fd < 0 || ftruncate(fd, sizeof *longest) < 0)
        err(1, "%s", file);
    longest = mmap(NULL, sizeof *longest, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (longest == MAP_FAILED)
        err(1, "mmap");
    close(fd);
    for (last = nanoseconds();; last = now) {
        now = nanoseconds();
        if (now - last > *longest)
            *longest = now - last;
    }
}

_Noreturn static void many(const char *address, int count, const char *rest, const char *file)
{
    int fd = -1;
    char byte;

    prctl(PR_SET_NAME, "beremote");
    for (int i = 0; i < count; i++)
        fd = connect_to(address, target_port);
    say_up();
    if (!strcmp(rest, "spin"))
        spin(file);
    for (;;) {
        if (!strcmp(rest, "poll"))
            poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 600000);
        else
            recv(fd, &byte, 1, 0);
    }
}

int main(int argc, char **argv)
{
    raise_descriptor_limit();
    if (argc == 2 && !strcmp(argv[1], "peer"))
        peer();
    if (argc == 6 && !strcmp(argv[1], "host"))
        host(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
    if (argc >= 7 && !strcmp(argv[1], "large"))
        large(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]), argc - 6, argv + 6);
    if (argc == 6 && !strcmp(argv[1], "many"))
        many(argv[2], atoi(argv[3]), argv[4], argv[5]);
    errx(64, "usage: busy-host peer | host ADDRESS PROCESSES CONNECTIONS TARGETS | "
             "large ADDRESS PROCESSES CONNECTIONS TARGETS NAMESPACE... | many ADDRESS COUNT REST FILE");
}
