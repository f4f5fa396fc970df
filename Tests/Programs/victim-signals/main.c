/*
 * Gets a queued and numbered real-time signal every millisecond, and counts the signals that arrive.
 *
 *   victim-signals spin|sleep    prints "PID FD"; a line on standard input ends it;
 *                                then "sent N handled N wrong N woken N" (woken: EINTR without a handler)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static volatile struct { int sent, over; } *shared;
static volatile sig_atomic_t handled, wrong;

static void handle(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    if (info->si_value.sival_int != handled) /* lost, twice, or out of order */
        wrong = wrong + 1;
    handled = handled + 1;
}

static void send_signals(pid_t to)
{
    char line[8];
    int next = 0;
    struct pollfd input = {.fd = 0, .events = POLLIN};
    while (poll(&input, 1, 1) == 0) {
        if (sigqueue(to, SIGRTMIN, (union sigval){.sival_int = next}) == 0)
            next++;
    }
    (void)!read(0, line, sizeof line);
    shared->sent = next;
    shared->over = 1;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0), woken = 0;
    int sleeps = argc > 1 && strcmp(argv[1], "sleep") == 0;
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    bind(listener, (void *)&address, sizeof address);
    listen(listener, 1);
    getsockname(listener, (void *)&address, &length);
    if (connect(fd, (void *)&address, sizeof address) < 0)
        return 1;
    sigaction(SIGRTMIN, &(struct sigaction){.sa_sigaction = handle, .sa_flags = SA_SIGINFO}, NULL);
    pid_t self = getpid(), sender = fork();
    if (sender == 0) {
        send_signals(self);
        _exit(0);
    }
    printf("%d %d\n", self, fd);
    fflush(stdout);
    while (!shared->over || handled < shared->sent) {
        int before = handled;
        static time_t over_at;
        if (shared->over && !over_at)
            over_at = time(NULL);
        if (over_at && time(NULL) > over_at + 3)
            break;
        /* poll(2) is never restarted. EINTR without a handler run must not be visible to the program. */
        if (sleeps && poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 100) < 0 && errno == EINTR && handled == before)
            woken++;
    }
    printf("sent %d handled %d wrong %d woken %d\n", shared->sent, (int)handled, (int)wrong, woken);
    return shared->sent != handled || wrong || woken;
}
