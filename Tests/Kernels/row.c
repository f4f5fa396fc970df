/*
 * One row of the matrix: a victim, and what sockalive does to it; the victim's own word after each.
 *
 *   row [-u UID] NAME SOCKALIVE DOING… -- VICTIM [ARGUMENT]…
 *
 * -u runs all of it as that user. DOING is auto, ptrace or pidfd (inject by that method), list, probe or doctor; the last
 * three may have -ptrace behind them. A ! behind it all says that sockalive has to refuse.
 *
 * VICTIM prints "PID FD PORT" and answers every byte sent to PORT with one byte, `!` if it was harmed (victim-odd,
 * victim-registers); or it prints "PID FD", sleeps, and says "ok" when a line on its standard input has woken it, or its
 * timeout is over (victim-sleeps).
 *
 * Prints a line for each DOING. Exit 1 if one is wrong.
 */
#define _GNU_SOURCE
#include "../Torture/victim.h"

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/syscall.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#define SYS_pidfd_getfd 438
#endif

/* Generous: the machine may be an emulation. */
#define ANSWER_MS 30000
#define ATTEMPTS 5

static struct victim victim = {.peer = -1, .status_fd = -1};
static int victim_fd, input = -1, output = -1;
static bool sleeps;

static bool read_line(int fd, char *line, size_t size)
{
    size_t length = 0;
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    while (length + 1 < size && poll(&ready, 1, ANSWER_MS) > 0 && read(fd, line + length, 1) == 1 && line[length] != '\n')
        length++;
    line[length] = '\0';
    return length > 0;
}

/* Both protocols begin alike. The first line tells which one it is. */
static void start(char **command)
{
    int in[2], out[2];
    char line[64];
    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || (victim.child = fork()) < 0)
        exit(2);
    if (victim.child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in[0], 0);
        dup2(out[1], 1);
        execvp(command[0], command);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    input = in[1];
    output = out[0];
    if (!read_line(output, line, sizeof line)) {
        printf("%s does not start\n", command[0]);
        exit(2);
    }
    sleeps = sscanf(line, "%d %d %d", &victim.pid, &victim_fd, &victim.port) == 2;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", victim.pid);
    victim.status_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (sleeps) {
        usleep(20000); /* until it sleeps */
        return;
    }
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)victim.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval timeout = {ANSWER_MS / 1000, 0};
    victim.peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(victim.peer, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    if (connect(victim.peer, (void *)&address, sizeof address) < 0 || !echoes(&victim))
        exit(2);
    victim.sockets = count_sockets(&victim);
}

static void end(void)
{
    close(input);
    close(output);
    end_victim(&victim);
}

/* The idle time of the victim's socket; 0: keepalive is off; -1: unknown. */
static int keepalive(void)
{
    int pidfd = (int)syscall(SYS_pidfd_open, victim.pid, 0), fd = (int)syscall(SYS_pidfd_getfd, pidfd, victim_fd, 0);
    int enabled = 0, idle = -1;
    socklen_t length = sizeof enabled;
    if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &enabled, &length) < 0 ||
        getsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, &length) < 0)
        idle = -1;
    else if (!enabled)
        idle = 0;
    close(fd);
    close(pidfd);
    return idle;
}

static bool is_method(const char *doing)
{
    return strncmp(doing, "auto", 4) == 0 || strncmp(doing, "pidfd", 5) == 0 || strncmp(doing, "ptrace", 6) == 0;
}

/* It failed, cannot do it, or may not. */
static bool is_refusal(int status)
{
    return status == 1 || status == 69 || status == 77;
}

/* Its exit code. What it says last on standard error is in `words`. */
static int run(const char *sockalive, const char *doing, int idle, char *words, size_t size)
{
    char pid[16], idle_text[16], command[16];
    int out[2], status;
    size_t length = 0;
    bool by_ptrace = strstr(doing, "-ptrace") != NULL, is_command = !is_method(doing);
    snprintf(pid, sizeof pid, "%d", victim.pid);
    snprintf(idle_text, sizeof idle_text, "%d", idle);
    snprintf(command, sizeof command, "%s", doing);
    command[strcspn(command, "-!")] = '\0';
    if (pipe2(out, O_CLOEXEC) < 0)
        exit(2);
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, 0);
        dup2(null, 1);
        dup2(out[1], 2);
        if (strcmp(command, "doctor") == 0)
            dup2(out[1], 1);
        char *arguments[16] = {(char *)sockalive, is_command ? command : (char *)"inject", (char *)"--pid", pid,
                               (char *)"--any-port", (char *)"--timeout", (char *)"25s"};
        int count = 7;
        if (strcmp(command, "doctor") != 0 && (!is_command || by_ptrace)) {
            arguments[count++] = (char *)"--method";
            arguments[count++] = is_command ? (char *)"ptrace" : command;
        }
        if (!is_command) {
            arguments[count++] = (char *)"--idle";
            arguments[count++] = idle_text;
        }
        if (!is_command || strcmp(command, "probe") == 0)
            arguments[count++] = (char *)"--no-lock";
        execv(sockalive, arguments);
        _exit(127);
    }
    close(out[1]);
    for (ssize_t got; length + 1 < size && (got = read(out[0], words + length, size - 1 - length)) > 0;)
        length += (size_t)got;
    words[length] = '\0';
    close(out[0]);
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* It ends by its own timeout. */
static bool is_timed(const char *how)
{
    return strlen(how) > 4 && strcmp(how + strlen(how) - 4, "-end") == 0;
}

/* Whether the victim says that nothing happened to it. What it says is in `word`. */
static bool is_well(const char *how, char *word, size_t size)
{
    if (!sleeps) {
        bool well = is_unharmed(&victim);
        snprintf(word, size, "%s", well ? "echoes" : "HARMED");
        return well;
    }
    if (status_number(&victim, "\nTracerPid:\t", 10) != 0) {
        snprintf(word, size, "HARMED: traced");
        return false;
    }
    if (!is_timed(how) && write(input, "\n", 1) != 1)
        return false;
    if (!read_line(output, word, size))
        snprintf(word, size, "HARMED: no word");
    return strncmp(word, "ok", 2) == 0;
}

static void one_line(char *words)
{
    words[strcspn(words, "\n")] = '\0';
    for (char *byte = words; *byte; byte++)
        if (iscntrl((unsigned char)*byte))
            *byte = '?';
}

int main(int argc, char **argv)
{
    static char words[65536];
    char word[128] = "";
    int first = 1, wrong = 0, idle = 1000;

    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    if (argc > 2 && strcmp(argv[1], "-u") == 0) {
        uid_t uid = (uid_t)atoi(argv[2]);
        if (setgroups(0, NULL) < 0 || setgid(uid) < 0 || setuid(uid) < 0 || prctl(PR_SET_DUMPABLE, 1) < 0)
            return 2;
        first = 3;
    }
    int split = first;
    while (split < argc && strcmp(argv[split], "--") != 0)
        split++;
    if (split < first + 3 || split + 1 >= argc)
        return 64;
    char **command = argv + split + 1;
    const char *how = argv[argc - 1];
    start(command);
    for (int i = first + 2; i < split; i++) {
        const char *doing = argv[i];
        bool refusal = doing[strlen(doing) - 1] == '!';
        int before, status, after;
        /* On a slow machine the victim's own timeout may be over before sockalive has found it. */
        for (int attempt = 0;; attempt++) {
            before = keepalive();
            status = run(argv[first + 1], doing, ++idle, words, sizeof words);
            after = keepalive();
            if (after >= 0 || !is_timed(how) || attempt == ATTEMPTS || !is_well(how, word, sizeof word))
                break;
            end();
            start(command);
        }
        bool right = (refusal ? is_refusal(status) : status == 0) && after == (is_method(doing) && !refusal ? idle : before);
        bool well = is_well(how, word, sizeof word);
        one_line(words);
        printf("%s %-12s %-18s %-8s exit %d, idle %d to %d; victim: %s%s%s\n", right && well ? "ok   " : "WRONG", argv[first],
               how, doing, status, before, after, word, status || !right ? "; " : "", status || !right ? words : "");
        wrong += !right || !well;
        /* It has said its word. */
        if (sleeps || !well) {
            end();
            if (i + 1 < split)
                start(command);
        }
    }
    if (!sleeps)
        end();
    return wrong != 0;
}
