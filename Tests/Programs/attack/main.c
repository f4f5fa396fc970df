/*
 * Runs the injector on attackers again and again, and checks whether they gained or harmed anything.
 *
 *   attack KIND N SOCKALIVE FOLDER            N tries of one of the attacks (kinds[], `user`, `stop`, `worker-kill`)
 *   attack steps ACTION SOCKALIVE FOLDER STRIDE
 *                                             ACTION before every STRIDEth request of the injector; 1: also after each
 *
 * FOLDER has the programs of build.sh. Set-user-ID programs must work there, and all users must have access.
 * Prints "KIND tried N gained G harmed H crashed C hung U".
 *   gained    a result that its owner may not have: euid 0, a folder or link that a filter forbids, words in a
 *             privileged program, all the injector's rights where the owner's are enough, a foreign PID taken as root's
 *   harmed    an honest target was harmed, or a target was left held
 *   crashed   the injector ended by a signal or with an undocumented code
 *   hung      it took 20 s
 */
#define _GNU_SOURCE
#include "slow-pages.h"

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

static struct shared *shared;
static const char *sockalive, *folder;
static char shared_path[300], proof_path[300], library_path[300];
/* The file for the injector's JSON; empty: not used. */
static char answer_path[320];
static int tried, gained, harmed, crashed, hung, turned;

/* The attacker, and the peer of its connection. */
static pid_t attacker;
static int traced_pid, number, port, peer = -1;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void fail(const char *what)
{
    fprintf(stderr, "attack: %s: %s\n", what, strerror(errno));
    if (attacker > 0)
        kill(-attacker, SIGKILL);
    exit(2);
}

/* --- the target --- */

static bool echoes(void)
{
    char byte = 'x';
    return send(peer, &byte, 1, MSG_NOSIGNAL) == 1 && recv(peer, &byte, 1, 0) == 1 && byte == 'x';
}

/* One field of a process's status; -1 if the process has no status any more. */
static long long status_number(const char *name, int base)
{
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/status", traced_pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0)
        return -1;
    text[length] = '\0';
    const char *line = strstr(text, name);
    return !line ? -1 : base ? strtoll(line + strlen(name), NULL, base) : line[strlen(name)];
}

static char state(void)
{
    return (char)status_number("\nState:\t", 0);
}

static int count_descriptors(void)
{
    char path[64], link[64];
    int count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        snprintf(path, sizeof path, "/proc/%d/fd/%d", traced_pid, fd);
        count += readlink(path, link, sizeof link) > 0;
    }
    return count;
}

/* Whether the process has ended, or runs the privileged program. */
static bool is_over(void)
{
    char path[64], name[32] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", traced_pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, name, sizeof name - 1);
    close(fd);
    return length <= 0 || strncmp(name, "attacker", 8) != 0 || state() == 'Z';
}

static void end_attacker(void)
{
    int status;
    close(peer);
    peer = -1;
    if (attacker > 0) {
        kill(-attacker, SIGKILL);
        waitpid(attacker, &status, 0);
    }
    attacker = 0;
}

static void clear_proofs(void)
{
    char path[400];
    const char *names[] = {"user", "words", "link", "source"};
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", proof_path, names[i]);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/folder", proof_path);
    rmdir(path);
}

/* The static attacker has its system call instruction at an address where the privileged program has code, too. */
static bool is_static(const char *mode)
{
    static const char *const modes[] = {"table-exec", "table-code", "junk", "returns", "frames", "code",
                                        "filtered-returns", "filtered-frames", "filtered-code"};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (strcmp(modes[i], mode) == 0)
            return true;
    return false;
}

static void start_attacker(const char *mode, int file, bool becomes_ready)
{
    int out[2];
    char line[64] = "", path[300], file_text[16];
    snprintf(path, sizeof path, "%s/attacker%s", folder, is_static(mode) ? "-static" : "");
    snprintf(file_text, sizeof file_text, "%d", file);
    shared->is_seized = shared->count = shared->wanted = shared->now = shared->done = 0;
    shared->target = shared->is_reading = shared->is_ready = 0;
    shared->tries_before = tried;
    clear_proofs();
    if (pipe2(out, O_CLOEXEC) < 0 || (attacker = fork()) < 0)
        fail("fork");
    if (attacker == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(out[1], 1);
        /* Otherwise its heap is anywhere in a gigabyte after its code: in some of a thousand runs at our addresses. */
        if (is_static(mode))
            personality(ADDR_NO_RANDOMIZE);
        execl(path, "attacker", mode, shared_path, folder, proof_path, file_text, (char *)NULL);
        _exit(127);
    }
    setpgid(attacker, attacker);
    close(out[1]);
    FILE *lines = fdopen(out[0], "r");
    if (!fgets(line, sizeof line, lines) || sscanf(line, "%d %d %d", &traced_pid, &number, &port) != 3)
        fail("attacker");
    fclose(lines);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval timeout = {2, 0};
    peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    if (connect(peer, (void *)&address, sizeof address) < 0)
        fail("connect");
    for (double end = seconds() + 5; becomes_ready && shared->is_ready != 2; usleep(200))
        if (seconds() > end)
            fail("the attacker is not ready");
}

/* --- the injector --- */

static pid_t start_injector(const char *command, const char *method, bool loads_library, bool hides_pidfd)
{
    static int idle;
    char pid[16], port_text[16], idle_text[16];
    const char *words[16] = {sockalive, command, "--pid", pid, "--port", port_text, "--method", method};
    int count = 8;
    snprintf(pid, sizeof pid, "%d", traced_pid);
    snprintf(port_text, sizeof port_text, "%d", port);
    snprintf(idle_text, sizeof idle_text, "%d", 100 + idle++ % 2); /* so there is always a value to set */
    if (strcmp(command, "inject") == 0)
        words[count++] = "--no-lock", words[count++] = "--idle", words[count++] = idle_text;
    if (answer_path[0])
        words[count++] = "--json";
    words[count] = NULL;
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child != 0) {
        setpgid(child, child);
        return child;
    }
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int out = open(getenv("ATTACK_LOG") ? getenv("ATTACK_LOG") : "/dev/null", O_WRONLY | O_CREAT | O_APPEND, 0644);
    dup2(out, 1), dup2(out, 2);
    if (answer_path[0])
        dup2(open(answer_path, O_WRONLY | O_CREAT | O_TRUNC, 0644), 1);
    if (loads_library || hides_pidfd)
        setenv("LD_PRELOAD", library_path, 1);
    if (loads_library)
        setenv("ATTACK_SHARED", shared_path, 1);
    if (hides_pidfd)
        setenv("HIDE_PIDFD", "1", 1);
    execv(sockalive, (char **)words);
    _exit(127);
}

/* Children of the injector, such as a worker, are in its group and end with it. */
static void await_injector(pid_t injector)
{
    static const int documented[] = {0, 1, 3, 64, 69, 75, 77};
    int status;
    for (double end = seconds() + 20; waitpid(injector, &status, WNOHANG) == 0; usleep(200)) {
        if (seconds() < end)
            continue;
        hung++;
        kill(-injector, SIGKILL);
        waitpid(injector, &status, 0);
        return;
    }
    kill(-injector, SIGKILL);
    bool is_known = false;
    for (size_t i = 0; WIFEXITED(status) && i < sizeof documented / sizeof *documented; i++)
        is_known = is_known || WEXITSTATUS(status) == documented[i];
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        fail(sockalive);
    if (!is_known && getenv("ATTACK_LOG"))
        fprintf(stderr, "attack: the injector ended with %#x\n", status);
    crashed += !is_known;
}

/* --- the result of an attack --- */

static long proof(const char *name)
{
    char path[400], text[32] = "";
    snprintf(path, sizeof path, "%s/%s", proof_path, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    return length > 0 ? atol(text) : -1;
}

static bool is_there(const char *name)
{
    char path[400];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", proof_path, name);
    return stat(path, &status) == 0;
}

static bool has_gained(void)
{
    long user = proof("user");
    turned += user > 0;
    return user == 0 || proof("words") > 0 || is_there("folder") || is_there("link");
}

/* Stopped by a tracer for longer than any hold. */
static bool stands_still(void)
{
    for (int i = 0; i < 20; i++) {
        if (state() != 't')
            return false;
        usleep(1000);
    }
    return true;
}

static const struct kind {
    const char *name, *mode, *command, *method;
    bool hides_pidfd, is_fresh;
} kinds[] = {
    {"root-inject", "table-exec", "inject", "auto", false, false},
    {"root-list", "table-exec", "list", "auto", false, false},
    {"root-ptrace", "rewrite-exec", "inject", "ptrace", false, false},
    {"root-list-ptrace", "rewrite-exec", "list", "ptrace", false, false},
    {"root-old-kernel", "rewrite-exec", "inject", "auto", true, false},
    {"root-code", "code-exec", "inject", "ptrace", false, true},
    {"root-table-code", "table-code", "inject", "auto", false, true},
    {"memory-pc", "slow-pc", "inject", "ptrace", false, true},
    {"memory-section", "slow-section", "inject", "ptrace", false, true},
    {"memory-stack", "slow-stack", "inject", "ptrace", false, true},
    {"memory-code", "slow-code", "inject", "ptrace", false, true},
    {"memory-list", "slow-pc", "list", "ptrace", false, true},
    {"filter-frames", "rewrite-mkdir", "inject", "ptrace", false, false},
    {"filter-code", "code-mkdir", "inject", "ptrace", false, true},
    {"filter-old-kernel", "rewrite-mkdir", "inject", "auto", true, false},
    {"crash", "page", "inject", "ptrace", false, false},
    {"crash-list", "page", "list", "ptrace", false, false},
    {"long-exec", "long-exec", "inject", "ptrace", false, true},
    {"long-filter", "long-mkdir", "inject", "ptrace", false, true},
    {"table", "other-table", "inject", "ptrace", false, true},
};

static void run_kind(const struct kind *kind, int tries)
{
    bool is_slow = strncmp(kind->mode, "slow-", 5) == 0, is_long = strncmp(kind->mode, "long-", 5) == 0;
    int lasted = 0;
    char pages[300], path[320];
    snprintf(pages, sizeof pages, "%s/pages.%d", folder, getpid());
    if (is_slow && ((mkdir(pages, 0755) < 0 && errno != EEXIST) || serve_slow_pages(pages, shared) < 0))
        fail("FUSE");
    for (; tried < tries; tried++) {
        if (attacker == 0) {
            int file = -1;
            if (is_slow) {
                bool is_code = strcmp(kind->mode, "slow-code") == 0;
                snprintf(path, sizeof path, "%s/%d", pages, tried + (is_code ? WITH_INODE : 0));
                if ((file = open(path, O_RDONLY)) < 0)
                    fail(path);
            }
            start_attacker(kind->mode, file, strncmp(kind->mode, "page", 4) != 0);
            if (file >= 0)
                close(file);
        }
        await_injector(start_injector(kind->command, kind->method, false, kind->hides_pidfd));
        /* The call may outlast the injector. */
        for (double end = seconds() + 6; is_long && !shared->done && seconds() < end;)
            usleep(1000);
        lasted += shared->now;
        bool is_replaced = is_over();
        for (int i = 0; i < (is_replaced || is_long ? 20 : 1) && !has_gained(); i++)
            usleep(2000);
        bool has_won = has_gained();
        gained += has_won;
        harmed += stands_still();
        if (has_won || is_replaced || kind->is_fresh || is_over())
            end_attacker();
    }
    if (is_long)
        fprintf(stderr, "%s: %d of %d calls lasted longer than a second\n", kind->name, lasted, tried);
    end_attacker();
}

/* --- 5: another user's connection counts as root's --- */

static void run_user(int tries)
{
    char port_text[16];
    for (; tried < tries; tried++) {
        start_attacker("linked", -1, false);
        for (double end = seconds() + 5; !shared->done && seconds() < end;)
            usleep(200);
        snprintf(port_text, sizeof port_text, "%d", port);
        pid_t child = fork();
        if (child == 0) {
            int null = open("/dev/null", O_WRONLY);
            dup2(null, 1), dup2(null, 2);
            execl(sockalive, sockalive, "inject", "--dry-run", "--user", "root", "--port", port_text, "--require",
                  (char *)NULL);
            _exit(127);
        }
        int status;
        waitpid(child, &status, 0);
        crashed += !WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 3);
        gained += WIFEXITED(status) && WEXITSTATUS(status) == 0;
        end_attacker();
    }
}

/* --- 6: the injector is stopped during a hold --- */

static bool is_stopped(pid_t injector)
{
    siginfo_t stop = {.si_pid = 0};
    return waitid(P_PID, (id_t)injector, &stop, WSTOPPED | WEXITED | WNOHANG | WNOWAIT) == 0 && stop.si_pid != 0 &&
           stop.si_code == CLD_STOPPED;
}

static bool has_ended(pid_t injector)
{
    siginfo_t stop = {.si_pid = 0};
    return waitid(P_PID, (id_t)injector, &stop, WEXITED | WNOHANG | WNOWAIT) == 0 && stop.si_pid != 0;
}

static void run_stop(int tries)
{
    static const int signals[] = {SIGTSTP, SIGTTIN, SIGTTOU};
    int stopped = 0;
    start_attacker("nothing", -1, true);
    for (; tried < tries; tried++) {
        pid_t injector = start_injector("inject", "ptrace", false, false);
        while (!has_ended(injector) && status_number("\nTracerPid:\t", 10) <= 0)
            ;
        /* A sleep has a slack of 50 us in the kernel, so this spins. */
        for (double end = seconds() + (double)(random() % 400) / 1e6; seconds() < end;)
            ;
        kill(-injector, signals[tried % 3]);
        for (double end = seconds() + 0.2; seconds() < end && !is_stopped(injector) && !has_ended(injector);)
            usleep(200);
        stopped += is_stopped(injector);
        /* The worker that holds the target is another process, which no terminal stops: it detaches by itself. */
        for (double end = seconds() + 5; seconds() < end && is_stopped(injector) && stands_still();)
            usleep(1000);
        harmed += is_stopped(injector) && stands_still();
        kill(-injector, SIGCONT);
        await_injector(injector);
        if (!echoes()) {
            harmed++;
            end_attacker();
            start_attacker("nothing", -1, true);
        }
    }
    fprintf(stderr, "stop: %d of %d runs were stopped\n", stopped, tried);
    end_attacker();
}

/* --- a killed helper --- */

/*
 * The target's owner. It may signal a child of the injector as soon as the child has become that user. It signals only
 * processes that the kernel lists as the injector's children, and its user owns nothing except targets.
 */
static pid_t start_killer(pid_t injector, bool kills_all)
{
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", injector, injector);
    int children = open(path, O_RDONLY | O_CLOEXEC);
    pid_t killer = children < 0 ? -1 : fork();
    if (killer != 0) {
        close(children);
        return killer;
    }
    if (setresgid(ATTACKER_USER, ATTACKER_USER, ATTACKER_USER) < 0 ||
        setresuid(ATTACKER_USER, ATTACKER_USER, ATTACKER_USER) < 0)
        _exit(4);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (ssize_t length; (length = pread(children, text, sizeof text - 1, 0)) >= 0;) {
        text[length] = '\0';
        pid_t child = atoi(text);
        if (child > 1 && kill(child, SIGKILL) == 0 && !kills_all)
            break;
    }
    _exit(0);
}

/* Whether the injector reports that it kept all rights for this target, which needs only its owner's. */
static bool has_kept_rights(bool kills, bool kills_all)
{
    char text[16384];
    int status;
    snprintf(answer_path, sizeof answer_path, "%s/answer", proof_path);
    unlink(answer_path);
    pid_t injector = start_injector("inject", tried % 4 < 2 ? "auto" : "ptrace", false, false);
    pid_t killer = kills ? start_killer(injector, kills_all) : -1;
    await_injector(injector);
    if (killer > 0) {
        kill(killer, SIGKILL);
        waitpid(killer, &status, 0);
    }
    int answer = open(answer_path, O_RDONLY | O_CLOEXEC);
    ssize_t length = answer < 0 ? 0 : read(answer, text, sizeof text - 1);
    close(answer);
    text[length > 0 ? length : 0] = '\0';
    return strstr(text, "\"kept\"") != NULL;
}

/* In turn it kills all helpers, and only the first: another one may replace that. */
static void run_worker_kill(int tries)
{
    start_attacker("echoes", -1, false);
    bool is_judged = !has_kept_rights(false, false);
    if (!is_judged)
        fprintf(stderr, "worker-kill: the rights are kept here in any case\n");
    for (; tried < tries; tried++) {
        gained += has_kept_rights(true, tried % 2 == 0) && is_judged;
        if (!echoes()) {
            harmed++;
            end_attacker();
            start_attacker("echoes", -1, false);
        }
    }
    end_attacker();
}

/* --- at each step --- */

static const char *const honest[] = {"nothing", "exit-thread", "clone", "unshare-files", "unshare-fs", "drop-root",
                                     "seteuid", "hide", "trace", "stop", "signal", "filter", "strict-filter"};

static bool is_honest(const char *action)
{
    for (size_t i = 0; i < sizeof honest / sizeof *honest; i++)
        if (strcmp(honest[i], action) == 0)
            return true;
    return false;
}

static int borrow(void)
{
    int pidfd = (int)syscall(SYS_pidfd_open, traced_pid, 0);
    int copy = (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);
    close(pidfd);
    return copy;
}

/* Whether another connection, which now has the number, was set. */
static bool has_set_another(ino_t inode)
{
    struct stat status;
    int is_on = 0, copy = borrow();
    socklen_t length = sizeof is_on;
    if (copy < 0 || fstat(copy, &status) < 0 || status.st_ino == inode)
        is_on = 0;
    else
        getsockopt(copy, SOL_SOCKET, SO_KEEPALIVE, &is_on, &length);
    close(copy);
    return is_on != 0;
}

static const char *harm(const char *action, int descriptors, ino_t inode)
{
    bool must_echo = is_honest(action), is_stop = strcmp(action, "stop") == 0;
    bool has_replaced = strncmp(action, "exec-", 5) == 0;
    siginfo_t over = {.si_pid = 0};
    waitid(P_PID, (id_t)attacker, &over, WEXITED | WNOHANG | WNOWAIT);
    if (over.si_pid != 0)
        return must_echo ? "dead" : has_replaced && over.si_code != CLD_EXITED ? "the new program is dead" : NULL;
    if (stands_still() || status_number("\nTracerPid:\t", 10) > 0)
        return "left traced";
    if (is_stop && shared->now) {
        for (int i = 0; i < 50 && state() != 'T'; i++)
            usleep(1000);
        if (state() != 'T')
            return "did not stay stopped";
        kill(traced_pid, SIGCONT);
    } else if (state() == 'T') {
        return "left stopped";
    }
    if ((must_echo || has_replaced) && status_number("\nSigBlk:\t", 16) > 0)
        return "signals left blocked";
    if (must_echo && !(echoes() && echoes()))
        return "does not echo";
    if (must_echo && count_descriptors() != descriptors)
        return "descriptors left";
    return strcmp(action, "replace") == 0 && has_set_another(inode) ? "another socket was set" : NULL;
}

/* Every step, before and after it; or with longer strides, from a random start. */
static void run_steps(const char *action, int stride)
{
    for (int variant = 0; variant < 2; variant++) {
        const char *method = variant == 0 ? "ptrace" : "auto";
        for (int step = 1 + (int)random() % stride;; step += stride) {
            bool is_last = false;
            for (int after = 0; after < (stride == 1 ? 2 : 1); after++) {
                start_attacker(action, -1, true);
                if (!echoes())
                    fail("the target does not echo");
                struct stat status = {0};
                int copy = borrow(), descriptors = count_descriptors();
                fstat(copy, &status);
                close(copy);
                shared->wanted = step;
                shared->after = after;
                await_injector(start_injector("inject", method, true, variant == 1));
                is_last = shared->count < step;
                if (step <= stride && is_last && shared->count == 0)
                    fail("the library sees no request: is the program static?");
                if (is_last) {
                    end_attacker();
                    break;
                }
                tried++;
                if (getenv("ATTACK_LOG"))
                    fprintf(stderr, "%s %d %d\n", action, shared->now, shared->done);
                for (int i = 0; i < (is_over() ? 5 : 1) && !has_gained(); i++)
                    usleep(1000);
                bool has_won = has_gained();
                const char *what = harm(action, descriptors, status.st_ino);
                /* That program belongs to its owner, so nothing is gained. But it is not the held program. */
                if (has_won && strcmp(action, "exec-ordinary") == 0)
                    has_won = false, what = "another program was written to";
                if (has_won || what)
                    fprintf(stderr, "%s %s %s request %d: %s%s\n", action, method, after ? "after" : "before", step,
                            has_won ? "gained " : "", what ? what : "");
                gained += has_won;
                harmed += what != NULL;
                end_attacker();
            }
            if (is_last)
                break;
        }
    }
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 64;
    sockalive = argv[3], folder = argv[4];
    srandom((unsigned)(getpid() ^ time(NULL)));
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(shared_path, sizeof shared_path, "%s/shared.%d", folder, getpid());
    snprintf(proof_path, sizeof proof_path, "%s/proof.%d", folder, getpid());
    snprintf(library_path, sizeof library_path, "%s/tell-at.so", folder);
    int fd = open(shared_path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || fchmod(fd, 0666) < 0 || ftruncate(fd, 4096) < 0 || !(shared = map_shared(shared_path)))
        fail(shared_path);
    if ((mkdir(proof_path, 0777) < 0 && errno != EEXIST) || chmod(proof_path, 0777) < 0)
        fail(proof_path);
    const char *name = strcmp(argv[1], "steps") == 0 ? argv[2] : argv[1];
    if (strcmp(argv[1], "steps") == 0)
        run_steps(argv[2], argc > 5 ? atoi(argv[5]) : 1);
    else if (strcmp(argv[1], "user") == 0)
        run_user(atoi(argv[2]));
    else if (strcmp(argv[1], "stop") == 0)
        run_stop(atoi(argv[2]));
    else if (strcmp(argv[1], "worker-kill") == 0)
        run_worker_kill(atoi(argv[2]));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(argv[1], kinds[i].name) == 0)
            run_kind(&kinds[i], atoi(argv[2]));
    if (tried == 0)
        return 64;
    /* A program other than the held one was written to. Its owner gains nothing, but this must not happen. */
    if (turned > 0)
        fprintf(stderr, "%s: another program was written to %d times\n", name, turned);
    harmed += turned;
    printf("%-18s tried %4d gained %3d harmed %3d crashed %3d hung %d\n", name, tried, gained, harmed, crashed, hung);
    return gained + harmed + crashed + hung > 0;
}
