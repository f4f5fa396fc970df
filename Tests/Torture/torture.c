/*
 * Kills the injector again and again, and checks whether its target was harmed.
 *
 *   torture random N SOCKALIVE VICTIM [ARGUMENT]…    SIGKILL to its process group, in turn at any time of the run and
 *                                                    soon after the seize
 *   torture steps LIBRARY SOCKALIVE VICTIM …         it, or its process with the owner's rights, dies before
 *                                                    and after its first, second, … request about the target
 *                                                    (LIBRARY: die-at.c, preloaded)
 *   torture target N SOCKALIVE VICTIM …              SIGKILL to the target instead
 *
 * VICTIM prints "PID FD PORT" and answers every byte sent to PORT with one byte, `!` if it was harmed.
 * Prints "harmed H of N, L hit a live injector, T while it held the target".
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char **victim_command;
static const char *sockalive, *library;
static pid_t victim, traced_pid;
static int port, peer = -1, status_fd = -1, sockets;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void pause_for(double length)
{
    for (double end = seconds() + length; seconds() < end;)
        if (end - seconds() > 0.002)
            usleep(500);
}

/* The number after "name" in the victim's status; -1 if the victim has no status any more. */
static long long status_number(const char *name, int base)
{
    char text[4096];
    ssize_t length = pread(status_fd, text, sizeof text - 1, 0);
    if (length <= 0)
        return -1;
    text[length] = '\0';
    const char *line = strstr(text, name);
    return line ? strtoll(line + strlen(name), NULL, base) : -1;
}

static int count_sockets(void)
{
    char path[64], link[64];
    int count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        snprintf(path, sizeof path, "/proc/%d/fd/%d", traced_pid, fd);
        ssize_t length = readlink(path, link, sizeof link);
        count += length > 7 && memcmp(link, "socket:", 7) == 0;
    }
    return count;
}

static bool echoes(void)
{
    char byte = 'x';
    return send(peer, &byte, 1, MSG_NOSIGNAL) == 1 && recv(peer, &byte, 1, 0) == 1 && byte != '!';
}

static void end_victim(void)
{
    close(peer);
    close(status_fd);
    if (victim > 0)
        kill(victim, SIGKILL), waitpid(victim, NULL, 0);
}

static void start_victim(void)
{
    int out[2], fd;
    char line[64] = "", path[64];
    if (pipe2(out, O_CLOEXEC) < 0 || (victim = fork()) < 0)
        exit(2);
    if (victim == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(out[1], 1);
        execvp(victim_command[0], victim_command);
        _exit(127);
    }
    close(out[1]);
    FILE *lines = fdopen(out[0], "r");
    if (!fgets(line, sizeof line, lines) || sscanf(line, "%d %d %d", &traced_pid, &fd, &port) != 3)
        exit(2);
    fclose(lines);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval timeout = {5, 0};
    peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    if (connect(peer, (void *)&address, sizeof address) < 0 || !echoes())
        exit(2);
    snprintf(path, sizeof path, "/proc/%d/status", traced_pid);
    status_fd = open(path, O_RDONLY | O_CLOEXEC);
    sockets = count_sockets();
}

static pid_t start_injector(int step, bool after)
{
    static int idle;
    char pid[16], port_text[16], idle_text[16], step_text[16];
    snprintf(pid, sizeof pid, "%d", traced_pid);
    snprintf(port_text, sizeof port_text, "%d", port);
    snprintf(idle_text, sizeof idle_text, "%d", 100 + idle++ % 2); /* so there is always a value to set */
    snprintf(step_text, sizeof step_text, "%d", step);
    pid_t child = fork();
    if (child != 0)
        return child;
    setpgid(0, 0);
    int null = open("/dev/null", O_RDWR);
    dup2(null, 1), dup2(null, 2);
    if (library) {
        setenv("LD_PRELOAD", library, 1);
        setenv(after ? "DIE_AFTER" : "DIE_BEFORE", step_text, 1);
    }
    execl(sockalive, sockalive, "inject", "--method", "ptrace", "--pid", pid, "--port", port_text, "--idle", idle_text,
          "--no-lock", "--quiet", (char *)NULL);
    _exit(127);
}

/* Whether the victim is as before: it echoes, is not traced or stopped, blocks no signal, has no extra descriptor. */
static bool unharmed(void)
{
    return echoes() && echoes() && status_number("\nTracerPid:\t", 10) == 0 &&
           (status_number("\nSigBlk:\t", 16) == 0) && count_sockets() == sockets;
}

/* Whether the injector was killed (1), or had ended before (0). */
static int kill_injector(pid_t injector, double moment, bool after_seize, bool *held)
{
    int status;
    siginfo_t over = {.si_pid = 0};
    if (after_seize)
        for (double end = seconds() + 1; seconds() < end && status_number("\nTracerPid:\t", 10) <= 0;)
            if (waitid(P_PID, (id_t)injector, &over, WEXITED | WNOHANG | WNOWAIT) == 0 && over.si_pid != 0)
                break;
    pause_for(moment);
    *held = status_number("\nTracerPid:\t", 10) > 0;
    kill(-injector, SIGKILL);
    kill(injector, SIGKILL);
    waitpid(injector, &status, 0);
    return WIFSIGNALED(status);
}

static double run_length(void)
{
    double best = 1;
    for (int i = 0; i < 5; i++) {
        int status;
        double start = seconds();
        waitpid(start_injector(0, false), &status, 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            fprintf(stderr, "torture: sockalive ended with %#x\n", status), exit(2);
        if (seconds() - start < best)
            best = seconds() - start;
    }
    return best;
}

static double random_part(void)
{
    return (double)random() / RAND_MAX;
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 64;
    const char *mode = argv[1];
    int number = atoi(argv[2]), harmed = 0, live = 0, holding = 0, runs = 0;
    bool steps = strcmp(mode, "steps") == 0, target = strcmp(mode, "target") == 0;
    sockalive = argv[3];
    victim_command = argv + 4;
    srandom((unsigned)(getpid() ^ time(NULL)));
    signal(SIGPIPE, SIG_IGN);
    start_victim();
    double length = run_length();
    if (steps)
        library = argv[2], number = 1 << 20;
    for (; runs < number; runs++) {
        bool held = false, after_seize = runs % 2, bad = false;
        pid_t injector = start_injector(runs / 2 + 1, runs % 2);
        if (steps) {
            int status;
            waitpid(injector, &status, 0);
            if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                break; /* it has no such step */
            if (runs == 1000)
                exit(2); /* no injector has so many steps: it fails for another reason */
            live++;
        } else if (target) {
            int status = 0;
            pause_for(random_part() * length);
            kill(victim, SIGKILL);
            bad = waitpid(victim, &status, 0) != victim || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL;
            for (double end = seconds() + 5; waitpid(injector, &status, WNOHANG) == 0;)
                if (seconds() > end)
                    bad = true, kill(injector, SIGKILL);
            live += !WIFSIGNALED(status);
            victim = 0;
        } else {
            live += kill_injector(injector, random_part() * (after_seize ? 0.0002 : length), after_seize, &held);
            holding += held;
        }
        bad = bad || (!target && !unharmed());
        harmed += bad;
        if (bad || target) {
            end_victim();
            start_victim();
        }
    }
    end_victim();
    printf("harmed %d of %d, %d hit a live injector, %d while it held the target\n", harmed, runs, live, holding);
    return harmed != 0;
}
