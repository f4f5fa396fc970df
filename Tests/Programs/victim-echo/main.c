/*
 * A program with TCP sessions that echoes all data: the test replacement for the backup agent.
 *
 *   victim-echo [OPTION]… connect|listen ADDRESS PORT [COUNT]
 *   victim-echo compute ROUNDS
 *
 *   --name TEXT        the process's name in /proc (any bytes; cut at 15)
 *   --mode read        one thread for each session, asleep in read(2); the default
 *   --mode poll        one thread asleep in poll(2) over all sessions
 *   --mode spin        one thread that computes without pause and echoes in between
 *   --fork             a child that sleeps inherits every session
 *   --keepalive I:V:C  keepalive on from the start: idle, interval, count
 *   --half-close       sends FIN on each session at once, so that nothing can be echoed
 *   --orphan           closes the last session then
 *   --mptcp            connects by MPTCP
 *   --local-port PORT  connects from this port
 *   --user-timeout MS  TCP_USER_TIMEOUT from the start
 *   --fill             first writes into each session until its send queue is full
 *
 * Standard output, a line each:
 *   listening PORT                    listen only
 *   ready PID CHILD FD:PORT…          every session is established (CHILD is 0 without --fork; PORT is the local one)
 *   echoed BYTES                      every peer has closed
 *   sum ROUNDS DIGEST                 after it, with spin; at once, with compute: the exact result of that many rounds
 *   failed CALL: REASON               a call failed. EINTR counts, too: an injection must not interrupt this program
 *
 * It ends when its peers close.
 */
#include "compute.h"
#include "sessions.h"

#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>

enum mode { MODE_READ, MODE_POLL, MODE_SPIN };

struct options {
    enum mode mode;
    int with_child, half_close, orphan;
    int keepalive[3]; /* idle, interval, count; 0: leave it off */
    int user_timeout; /* milliseconds; 0: leave it off */
    int fills;
};

static int sessions[SESSIONS_MAX];
static int count;
static atomic_long echoed;

/* One read and its echo; 0 when the peer has closed, -1 if there was nothing to read. */
static int echo_once(int fd, int flags)
{
    char buffer[4096];
    ssize_t n = flags ? recv(fd, buffer, sizeof buffer, flags) : read(fd, buffer, sizeof buffer);

    if (n < 0 && flags && errno == EAGAIN)
        return -1;
    if (n < 0)
        fail(flags ? "recv" : "read");
    write_all(fd, buffer, (size_t)n);
    echoed += n;
    return n > 0;
}

static void *read_session(void *argument)
{
    while (echo_once(*(int *)argument, 0))
        continue;
    return NULL;
}

static void read_sessions(void)
{
    static pthread_t threads[SESSIONS_MAX];

    for (int i = 1; i < count; i++) {
        if ((errno = pthread_create(&threads[i], NULL, read_session, &sessions[i])) != 0)
            fail("pthread_create");
    }
    read_session(&sessions[0]);
    for (int i = 1; i < count; i++)
        pthread_join(threads[i], NULL);
}

static void poll_sessions(void)
{
    static struct pollfd polled[SESSIONS_MAX];
    int open = count;

    for (int i = 0; i < count; i++)
        polled[i] = (struct pollfd){.fd = sessions[i], .events = POLLIN};
    while (open > 0) {
        if (poll(polled, (nfds_t)count, -1) < 0)
            fail("poll");
        for (int i = 0; i < count; i++) {
            if (polled[i].fd >= 0 && polled[i].revents && !echo_once(polled[i].fd, 0)) {
                polled[i].fd = -1;
                open--;
            }
        }
    }
}

static void spin_over_sessions(void)
{
    struct computation computation;
    uint64_t rounds = 0;
    int open = count;

    compute_start(&computation);
    while (open > 0) {
        compute_round(&computation);
        rounds++;
        for (int i = 0; i < count; i++) {
            if (sessions[i] >= 0 && echo_once(sessions[i], MSG_DONTWAIT) == 0) {
                sessions[i] = -1;
                open--;
            }
        }
    }
    say("sum %" PRIu64 " %016" PRIx64, rounds, compute_digest(&computation));
}

static void compute(uint64_t rounds)
{
    struct computation computation;

    compute_start(&computation);
    for (uint64_t i = 0; i < rounds; i++)
        compute_round(&computation);
    say("sum %" PRIu64 " %016" PRIx64, rounds, compute_digest(&computation));
}

static void turn_keepalive_on(int fd, const int *values)
{
    int one = 1;

    if (setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &values[0], sizeof *values) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &values[1], sizeof *values) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &values[2], sizeof *values) < 0)
        fail("setsockopt");
}

/* Until nothing more goes in for a while: the peer's window is closed, or the path is. */
static void fill(int fd)
{
    static char buffer[65536];
    struct pollfd polled = {.fd = fd, .events = POLLOUT};

    while (poll(&polled, 1, 300) > 0) {
        if (send(fd, buffer, sizeof buffer, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN)
            fail("send");
    }
}

static pid_t sleeping_child(void)
{
    pid_t child = fork();

    if (child < 0)
        fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    return child;
}

static void say_ready(pid_t child)
{
    printf("ready %d %d", getpid(), child);
    for (int i = 0; i < count; i++)
        printf(" %d:%d", sessions[i], local_port(sessions[i]));
    say("");
}

/* Returns how many words were options. */
static int parse_options(int argc, char **argv, struct options *options)
{
    int i = 0;

    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        if (strcmp(argv[i], "--fork") == 0)
            options->with_child = 1;
        else if (strcmp(argv[i], "--half-close") == 0)
            options->half_close = 1;
        else if (strcmp(argv[i], "--orphan") == 0)
            options->orphan = 1;
        else if (strcmp(argv[i], "--mptcp") == 0)
            session_protocol = 262; /* IPPROTO_MPTCP */
        else if (strcmp(argv[i], "--fill") == 0)
            options->fills = 1;
        else if (i + 1 == argc)
            return argc;
        else if (strcmp(argv[i], "--name") == 0)
            prctl(PR_SET_NAME, argv[++i]);
        else if (strcmp(argv[i], "--local-port") == 0)
            session_local_port = atoi(argv[++i]);
        else if (strcmp(argv[i], "--mode") == 0)
            options->mode = argv[++i][0] == 's' ? MODE_SPIN : argv[i][0] == 'p' ? MODE_POLL : MODE_READ;
        else if (strcmp(argv[i], "--keepalive") == 0)
            sscanf(argv[++i], "%d:%d:%d", &options->keepalive[0], &options->keepalive[1], &options->keepalive[2]);
        else if (strcmp(argv[i], "--user-timeout") == 0)
            options->user_timeout = atoi(argv[++i]);
        else
            return argc;
    }
    return i;
}

int main(int argc, char **argv)
{
    struct options options = {0};
    int used = 1 + parse_options(argc - 1, argv + 1, &options);

    /* Yama allows other users' tools only with the target's consent. Without Yama this fails, and is not needed. */
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    if (argc - used == 2 && strcmp(argv[used], "compute") == 0) {
        compute(strtoull(argv[used + 1], NULL, 10));
        return 0;
    }
    count = open_sessions(argc - used, argv + used, sessions);
    if (count < 0)
        usage("victim-echo [OPTION]... connect|listen ADDRESS PORT [COUNT] | compute ROUNDS");
    for (int i = 0; options.keepalive[0] && i < count; i++)
        turn_keepalive_on(sessions[i], options.keepalive);
    for (int i = 0; options.half_close && i < count; i++)
        shutdown(sessions[i], SHUT_WR);
    if (options.orphan)
        close(sessions[--count]);
    for (int i = 0; options.user_timeout && i < count; i++) {
        if (setsockopt(sessions[i], IPPROTO_TCP, TCP_USER_TIMEOUT, &options.user_timeout, sizeof(int)) < 0)
            fail("setsockopt");
    }
    for (int i = 0; options.fills && i < count; i++)
        fill(sessions[i]);
    say_ready(options.with_child ? sleeping_child() : 0);

    if (options.mode == MODE_SPIN)
        spin_over_sessions();
    else if (options.mode == MODE_POLL)
        poll_sessions();
    else
        read_sessions();
    say("echoed %ld", (long)echoed);
    return 0;
}
