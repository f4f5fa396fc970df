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
#include "victim.h"

static const char *sockalive, *library;
static struct victim victim = {.peer = -1, .status_fd = -1};

static pid_t start_injector(int step, bool after)
{
    static int idle;
    char pid[16], port_text[16], idle_text[16], step_text[16];
    snprintf(pid, sizeof pid, "%d", victim.pid);
    snprintf(port_text, sizeof port_text, "%d", victim.port);
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

/* Whether the injector was killed (1), or had ended before (0). */
static int kill_injector(pid_t injector, double moment, bool after_seize, bool *held)
{
    int status;
    siginfo_t over = {.si_pid = 0};
    if (after_seize)
        for (double end = seconds() + 1; seconds() < end && status_number(&victim, "\nTracerPid:\t", 10) <= 0;)
            if (waitid(P_PID, (id_t)injector, &over, WEXITED | WNOHANG | WNOWAIT) == 0 && over.si_pid != 0)
                break;
    pause_for(moment);
    *held = status_number(&victim, "\nTracerPid:\t", 10) > 0;
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

int main(int argc, char **argv)
{
    if (argc < 5)
        return 64;
    const char *mode = argv[1];
    int number = atoi(argv[2]), harmed = 0, live = 0, holding = 0, runs = 0;
    bool steps = strcmp(mode, "steps") == 0, target = strcmp(mode, "target") == 0;
    sockalive = argv[3];
    victim.command = argv + 4;
    srandom((unsigned)(getpid() ^ time(NULL)));
    signal(SIGPIPE, SIG_IGN);
    start_victim(&victim);
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
            kill(victim.child, SIGKILL);
            bad = waitpid(victim.child, &status, 0) != victim.child || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL;
            for (double end = seconds() + 5; waitpid(injector, &status, WNOHANG) == 0;)
                if (seconds() > end)
                    bad = true, kill(injector, SIGKILL);
            live += !WIFSIGNALED(status);
            victim.child = 0;
        } else {
            live += kill_injector(injector, random_part() * (after_seize ? 0.0002 : length), after_seize, &held);
            holding += held;
        }
        bad = bad || (!target && !is_unharmed(&victim));
        harmed += bad;
        if (bad || target) {
            end_victim(&victim);
            start_victim(&victim);
        }
    }
    end_victim(&victim);
    printf("harmed %d of %d, %d hit a live injector, %d while it held the target\n", harmed, runs, live, holding);
    return harmed != 0;
}
