/*
 * One row of the matrix: a victim, and what sockalive does to it; the victim's own word after each.
 *
 *   row [-u UID] NAME SOCKALIVE DOING… -- VICTIM [ARGUMENT]…
 *
 * -u runs all of it as that user. DOING is auto, ptrace or pidfd (inject by that method), dry-run, list, probe or doctor;
 * list and probe may have -ptrace behind them. A ! behind it all says that sockalive has to refuse. What it says must be
 * true on this kernel and this architecture.
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
#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/syscall.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#define SYS_pidfd_getfd 438
#endif
/* Linux 6.9. */
#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
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

/* The victim with the thread whose status and descriptors tell how it is. */
static struct victim telling;

/* That is the main thread. One that has exited has no descriptors, and blocks all signals: then it is another one. */
static void choose_thread(const char *how)
{
    char path[64], line[256] = "";
    pid_t thread = victim.pid;
    if (strcmp(how, "own-table") == 0) {
        /* It echoes a moment before the main thread's descriptor becomes another file. */
        snprintf(path, sizeof path, "/proc/%d/fd/%d", victim.pid, victim_fd);
        for (int waited = 0; waited < ANSWER_MS; waited++) {
            if (readlink(path, line, sizeof line) < 7 || memcmp(line, "socket:", 7) != 0)
                break;
            usleep(1000);
        }
    } else if (strcmp(how, "zombie-main") == 0) {
        snprintf(path, sizeof path, "/proc/%d/stat", victim.pid);
        for (int waited = 0; !strstr(line, ") Z ") && waited < ANSWER_MS; waited++) {
            int file = open(path, O_RDONLY | O_CLOEXEC);
            ssize_t length = read(file, line, sizeof line - 1);
            line[length > 0 ? length : 0] = '\0';
            close(file);
            usleep(1000);
        }
        snprintf(path, sizeof path, "/proc/%d/task", victim.pid);
        DIR *threads = opendir(path);
        for (struct dirent *entry; threads && (entry = readdir(threads));)
            if (isdigit((unsigned char)*entry->d_name) && atoi(entry->d_name) != victim.pid)
                thread = atoi(entry->d_name);
        if (threads)
            closedir(threads);
    }
    snprintf(path, sizeof path, "/proc/%d/status", thread);
    victim.status_fd = open(path, O_RDONLY | O_CLOEXEC);
    telling = victim;
    telling.pid = thread;
}

/* Both protocols begin alike. The first line tells which one it is. */
static void start(char **command, const char *how)
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
    if (sleeps) {
        choose_thread("");
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
    choose_thread(how);
    telling.sockets = count_sockets(&telling);
}

static void end(void)
{
    close(input);
    close(output);
    end_victim(&victim);
}

/* The idle time of what the descriptor of a process, or with PIDFD_THREAD of a thread, is; 0: keepalive is off; -1: unknown. */
static int idle_of(pid_t pid, unsigned flags)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, flags), fd = (int)syscall(SYS_pidfd_getfd, pidfd, victim_fd, 0);
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

/* The same of the victim's socket, which may be in the table of a single thread. */
static int keepalive(void)
{
    char path[64];
    int idle = idle_of(victim.pid, 0);
    snprintf(path, sizeof path, "/proc/%d/task", victim.pid);
    DIR *threads = opendir(path);
    for (struct dirent *entry; threads && idle < 0 && (entry = readdir(threads));)
        if (isdigit((unsigned char)*entry->d_name))
            idle = idle_of(atoi(entry->d_name), PIDFD_THREAD);
    if (threads)
        closedir(threads);
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
    bool by_ptrace = strstr(doing, "-ptrace") != NULL, is_dry = strcmp(doing, "dry-run") == 0;
    bool is_command = !is_method(doing) && !is_dry;
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
        if (is_dry)
            arguments[count++] = (char *)"--dry-run";
        else if (!is_command || by_ptrace) {
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

/* What is false wherever this runs: a kernel that has pidfd (5.6), and on other processors than those of x86-64. */
static const char *const false_words[] = {"update the kernel", "ptrace serves",
#ifndef __x86_64__
                                          "by ptrace", "ptrace works", "--method ptrace", "x32"
#endif
};

#ifdef __x86_64__
#define WORKING "sockalive works here, by pidfd and by ptrace"
#define PTRACE_REFUSAL "" /* several reasons */
#else
#define WORKING "sockalive works here, by pidfd:"
#define PTRACE_REFUSAL "sockalive knows x86-64 only"
#endif

/* All that it says, in one line: the doctor breaks its lines. */
static char text[65536];

/* What is wrong with what it says; NULL if nothing is. */
static const char *falsehood(const char *doing, const char *words)
{
    static char found[128];
    size_t length = 0;
    for (; *words; words++)
        if (!isspace((unsigned char)*words))
            text[length++] = *words;
        else if (length > 0 && text[length - 1] != ' ')
            text[length++] = ' ';
    text[length] = '\0';
    for (size_t i = 0; i < sizeof false_words / sizeof *false_words; i++)
        if (strstr(text, false_words[i])) {
            snprintf(found, sizeof found, "it says \"%s\"", false_words[i]);
            return found;
        }
    if (strcmp(doing, "doctor") == 0 && !strstr(text, WORKING))
        return "it does not say \"" WORKING "\"";
    if (strcmp(doing, "ptrace!") == 0 && !strstr(text, PTRACE_REFUSAL))
        return "it does not say \"" PTRACE_REFUSAL "\"";
    return NULL;
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
        bool well = is_unharmed(&telling);
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
    start(command, how);
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
            start(command, how);
        }
        bool right = (refusal ? is_refusal(status) : status == 0) && after == (is_method(doing) && !refusal ? idle : before);
        bool well = is_well(how, word, sizeof word);
        const char *fault = falsehood(doing, words);
        one_line(words);
        bool is_ok = right && well && !fault;
        printf("%s %-12s %-18s %-8s exit %d, idle %d to %d; victim: %s%s%s%s%s\n", is_ok ? "ok   " : "WRONG", argv[first], how,
               doing, status, before, after, word, status || !right || fault ? "; " : "",
               fault ? text : status || !right ? words : "",
               fault ? "; " : "", fault ? fault : "");
        wrong += !is_ok;
        /* It has said its word. */
        if (sleeps || !well) {
            end();
            if (i + 1 < split)
                start(command, how);
        }
    }
    if (!sleeps)
        end();
    return wrong != 0;
}
