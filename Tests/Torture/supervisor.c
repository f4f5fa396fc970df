/*
 * Kills the injector's parent process, its worker, and both in turn, at random moments, and looks what is left.
 *
 *   supervisor N METHOD SOCKALIVE LOCK -- VICTIM [ARGUMENT]… -- VICTIM …
 *
 * All victims are targets of each run (victim.h). Prints "N kills, L of a live one: H harmed, K locks kept, P processes
 * left, E wrong ends, S of T helpers with the worker's memory". A process is left if it lives two seconds later. A
 * helper has the rights of another user, who must not write into what the worker says to its parent.
 */
#define _GNU_SOURCE
#include "victim.h"

#include <errno.h>
#include <sys/file.h>

enum { MAX_VICTIMS = 8, PARENT = 0, WORKER, BOTH, KINDS };

static struct victim victims[MAX_VICTIMS];
static int victim_count;
static const char *method, *sockalive, *lock;

static void read_victims(char **words)
{
    for (; *words; words++) {
        if (strcmp(*words, "--") != 0)
            continue;
        *words = NULL;
        if (victim_count == MAX_VICTIMS)
            exit(64);
        victims[victim_count++].command = words + 1;
    }
}

static pid_t start_injector(void)
{
    static int idle;
    static char numbers[2 * MAX_VICTIMS + 1][16];
    char *words[16 + 4 * MAX_VICTIMS] = {(char *)sockalive, "inject", "--method", (char *)method, "--lock",
                                         (char *)lock, "--quiet", "--timeout", "20s", "--idle"};
    int count = 10;

    snprintf(numbers[0], sizeof numbers[0], "%d", 100 + idle++ % 2); /* so there is always a value to set */
    words[count++] = numbers[0];
    for (int i = 0; i < victim_count; i++) {
        snprintf(numbers[2 * i + 1], sizeof numbers[0], "%d", victims[i].pid);
        snprintf(numbers[2 * i + 2], sizeof numbers[0], "%d", victims[i].port);
        words[count++] = "--pid";
        words[count++] = numbers[2 * i + 1];
        words[count++] = "--port";
        words[count++] = numbers[2 * i + 2];
    }
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        int null = open("/dev/null", O_RDWR);
        dup2(null, 1), dup2(null, 2);
        execv(sockalive, words);
        _exit(127);
    }
    setpgid(child, child);
    return child;
}

/* The first child of a process; 0 if it has none. */
static pid_t first_child(pid_t pid)
{
    char path[64], text[16] = "";
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    close(fd);
    return length > 0 ? atoi(text) : 0;
}

/* Whether a process shares memory with another. */
static bool shares_memory(pid_t pid)
{
    char path[64], line[512];
    bool shares = false;
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *maps = fopen(path, "re");
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long start, end;
        /* One page says whether a thread is held, which the helper knows best. */
        if (strstr(line, " rw-s ") && sscanf(line, "%lx-%lx", &start, &end) == 2)
            shares = shares || end - start > 4096;
    }
    if (maps)
        fclose(maps);
    return shares;
}

static bool becomes_free(void)
{
    /* A worker that has just been forked still has its parent's descriptors. */
    for (double end = seconds() + 1; seconds() < end; usleep(1000)) {
        int fd = open(lock, O_RDONLY | O_CLOEXEC);
        int result = fd < 0 && errno == ENOENT ? 0 : flock(fd, LOCK_EX | LOCK_NB);
        close(fd);
        if (result == 0)
            return true;
    }
    return false;
}

/* Whether all processes of a group end by themselves. This process is the parent of those that have lost theirs. */
static bool all_end(pid_t group)
{
    for (double end = seconds() + 2; seconds() < end; usleep(500))
        while (waitpid(-group, NULL, WNOHANG) != 0)
            if (errno == ECHILD)
                return true;
    kill(-group, SIGKILL);
    return false;
}

/* How the injector ends; -1 if it does not. */
static int wait_for_end(pid_t injector)
{
    int status;
    for (double end = seconds() + 30; seconds() < end; usleep(200))
        if (waitpid(injector, &status, WNOHANG) == injector)
            return status;
    kill(injector, SIGKILL);
    waitpid(injector, &status, 0);
    return -1;
}

/* Waits for the worker, or for a helper of it, and a moment more. */
static void aim(pid_t injector, double length, pid_t *helper)
{
    for (double end = seconds() + 5 * length; seconds() < end;) {
        pid_t child = first_child(injector);
        if (helper)
            child = *helper = child > 0 ? first_child(child) : 0;
        if (child > 0)
            break;
    }
    pause_for(random_part() * (helper ? 0.0005 : 0.005));
}

static double run_length(void)
{
    double best = 10;
    for (int i = 0; i < 5; i++) {
        double start = seconds();
        int status = wait_for_end(start_injector());
        if (status != 0)
            fprintf(stderr, "supervisor: sockalive ended with %#x\n", status), exit(2);
        if (seconds() - start < best)
            best = seconds() - start;
    }
    return best;
}

int main(int argc, char **argv)
{
    int harmed = 0, live = 0, kept = 0, left = 0, wrong = 0, helpers = 0, shared = 0;
    int number = argc > 6 ? atoi(argv[1]) : 0;

    if (number < 1)
        return 64;
    method = argv[2];
    sockalive = argv[3];
    lock = argv[4];
    read_victims(argv + 5);
    srandom((unsigned)(getpid() ^ time(NULL)));
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (int i = 0; i < victim_count; i++)
        start_victim(&victims[i]);
    double length = run_length();
    for (int run = 0; run < number; run++) {
        int kind = run % KINDS;
        pid_t injector = start_injector(), worker = 0, helper = 0;
        /* Half of the kills come at any time. The others come soon after the worker or its helper has appeared. */
        if (run / KINDS % 2 == 0)
            pause_for(random_part() * length);
        else
            aim(injector, length, kind == BOTH ? &helper : NULL);
        helpers += helper > 0;
        shared += helper > 0 && shares_memory(helper);
        if (kind == WORKER) {
            worker = first_child(injector);
            if (worker > 0)
                kill(worker, SIGKILL);
        } else {
            kill(kind == BOTH ? -injector : injector, SIGKILL);
        }
        int status = wait_for_end(injector);
        bool was_live = kind == WORKER ? worker > 0 : WIFSIGNALED(status);
        live += was_live;
        /* A parent without its worker finishes with another one, or tells of it. */
        if (kind == WORKER || !was_live)
            wrong += !WIFEXITED(status) || WEXITSTATUS(status) > 1;
        kept += !becomes_free();
        left += !all_end(injector);
        for (int i = 0; i < victim_count; i++) {
            if (is_unharmed(&victims[i]))
                continue;
            harmed++;
            end_victim(&victims[i]);
            start_victim(&victims[i]);
        }
    }
    /* The last one is left alone. */
    wrong += wait_for_end(start_injector()) != 0;
    for (int i = 0; i < victim_count; i++)
        end_victim(&victims[i]);
    printf("%d kills, %d of a live one: %d harmed, %d locks kept, %d processes left, %d wrong ends, "
           "%d of %d helpers with the worker's memory\n",
           number, live, harmed, kept, left, wrong, shared, helpers);
    return harmed || kept || left || wrong || shared;
}
