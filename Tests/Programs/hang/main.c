/*
 * Healthy agents with connections to port 5633, and beside them a process at which another process's call hangs.
 *
 *   hang SCENE FOLDER [CGROUP]
 *
 * SCENE is one of the list below. FOLDER gets a file system whose server no longer answers. CGROUP is a folder of
 * cgroup v2. When all is as the scene wants it, prints "ready HANGING PID:FD..." with the process at which calls hang
 * (0 if there is none) and the healthy connections. Then it reads lines: "off" turns their keepalive off; "release"
 * ends the server, the tracing and the freeze, so that nothing waits any more. Each is answered by "done". At the end
 * of standard input, everything ends.
 *
 * It is made for PID, network and mount namespaces that end with it.
 */
#include "file-server.h"
#include "sessions.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { PORT = 5633, FROZEN_SOCKETS = 16, FROZEN_HOLDERS = 15, MAX_AGENTS = 32, STRANGERS = 40, SLOW_SOCKETS = 12,
       MANY_SOCKETS = 1500 };

static const char *folder, *cgroup;
static struct sockaddr_storage address;
static socklen_t address_length;
static int listener;
static pid_t server, agents[MAX_AGENTS];
static bool is_frozen;
static int agent_count;
/* Of the healthy agents. This process has the connections, too. */
static struct {
    pid_t pid;
    int fd;
} healthy[MAX_AGENTS];
static int healthy_count;

static struct {
    /* is_prepared: the agent has opened what it needs while the server lives. may_hang: the server is dead. */
    atomic_int is_prepared, may_hang, has_unconnected;
    /* The process at which calls hang, where it is not the agent; a thread that is to be traced. */
    atomic_int hanging, traced;
    /* How many agents have their name, and no descriptor but their own. */
    atomic_int started;
    /* The slow agent is to be slow no longer. */
    atomic_int is_released;
} *shared;

static void wait_for(atomic_int *value)
{
    while (!*value)
        usleep(500);
}

/* ---- connections and agents ------------------------------------------------------ */

/* Both ends of a connection. The peer's end stays here. */
static int connection(int *peer)
{
    int fd = open_session(&address, address_length);

    *peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (*peer < 0)
        fail("accept");
    return fd;
}

static void keep_only(const int *fds, int count)
{
    int null = open("/dev/null", O_RDWR);

    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    for (int fd = 3; fd < SESSIONS_MAX; fd++) {
        bool is_kept = false;
        for (int i = 0; i < count; i++)
            is_kept = is_kept || fds[i] == fd;
        if (!is_kept)
            close(fd);
    }
}

static pid_t start_agent(const char *name, const int *fds, int count, void (*body)(int fd))
{
    pid_t parent = getpid(), child = fork();

    if (child < 0)
        fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(0);
        prctl(PR_SET_NAME, name);
        keep_only(fds, count);
        shared->started++;
        body(fds[0]);
        for (;;)
            pause();
    }
    agents[agent_count++] = child;
    while (shared->started < agent_count)
        usleep(500);
    return child;
}

static pid_t start(void (*body)(int fd), int *fd, int *peer)
{
    *fd = connection(peer);
    return start_agent("beremote", fd, 1, body);
}

static void count_as_healthy(pid_t pid, int fd)
{
    healthy[healthy_count].pid = pid;
    healthy[healthy_count++].fd = fd;
}

static void do_nothing(int fd)
{
    (void)fd;
}

/* It has one more socket, which is in no table. Who looks for that looks into the namespaces of all processes. */
static void open_unconnected(int fd)
{
    (void)fd;
    if (socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) < 0)
        fail("socket");
    shared->has_unconnected = 1;
}

static void start_healthy(void)
{
    int fd, peer;
    pid_t pid = start(do_nothing, &fd, &peer);

    count_as_healthy(pid, fd);
}

/* ---- the bodies of agents -------------------------------------------------------- */

static int open_far(const char *name, int flags)
{
    char path[4096];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        fail("open");
    return fd;
}

static void *map_far_pages(void *place, int protection)
{
    int file = open_far(PAGES_FILE, O_RDONLY);
    int fixed = place ? MAP_FIXED_NOREPLACE : 0;
    void *pages = mmap(place, PAGES_SIZE, protection, MAP_PRIVATE | fixed, file, 0);

    close(file);
    return pages;
}

/* Children wait in execve(2): the log is close-on-exec, and the close waits for the server. */
static void start_helpers(int count)
{
    if (write(open_far(LOG_FILE, O_WRONLY), "upgrade\n", 8) < 0)
        fail("write");
    shared->is_prepared = 1;
    wait_for(&shared->may_hang);
    for (pid_t agent = getpid(); count > 0; count--) {
        pid_t child = fork();
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() == agent)
                execl("/bin/true", "true", (char *)NULL);
            _exit(0);
        }
        shared->hanging = child;
    }
}

static void start_helper(int fd)
{
    (void)fd;
    start_helpers(1);
}

static void start_many_helpers(int fd)
{
    (void)fd;
    start_helpers(STRANGERS);
}

static void *wait_for_ever(void *unused)
{
    (void)unused;
    for (;;)
        pause();
    return NULL;
}

static void *be_traced(void *unused)
{
    shared->traced = (int)syscall(SYS_gettid);
    return wait_for_ever(unused);
}

static void *execute(void *unused)
{
    (void)unused;
    wait_for(&shared->may_hang);
    execl("/bin/true", "true", (char *)NULL);
    _exit(1);
}

/* One thread executes a program. Another is traced, and does not get to its end. */
static void start_threads(int fd)
{
    pthread_t thread;

    (void)fd;
    if (pthread_create(&thread, NULL, be_traced, NULL) || pthread_create(&thread, NULL, execute, NULL))
        fail("pthread_create");
}

/* It has code above that of the loader and of libc, and no page of it is there. */
static void map_missing_code(int fd)
{
    uintptr_t place = getauxval(AT_BASE) & ~0xfffffUL;
    void *code;

    (void)fd;
    do
        code = map_far_pages((void *)(place += 1 << 20), PROT_READ | PROT_EXEC);
    while (code == MAP_FAILED && errno == EEXIST);
    if (code == MAP_FAILED)
        fail("mmap");
    shared->is_prepared = 1;
}

/* It holds the socket's lock in send(2), which waits for a page of the data. */
static void send_missing_pages(int fd)
{
    void *pages = map_far_pages(NULL, PROT_READ);

    if (pages == MAP_FAILED)
        fail("mmap");
    shared->is_prepared = 1;
    wait_for(&shared->may_hang);
    send(fd, pages, PAGES_SIZE, MSG_NOSIGNAL);
}

/* A page that is never there. It comes 0.7 s after it is asked for (userfaultfd(2)). */
struct slow_page {
    char *page;
    int faults, socket;
};

static void *bring_page(void *argument)
{
    const struct slow_page *slow = argument;
    struct uffd_msg message;

    while (read(slow->faults, &message, sizeof message) == sizeof message) {
        struct uffdio_zeropage zero = {.range = {(uintptr_t)slow->page, 4096}};
        if (!shared->is_released)
            usleep(700000);
        ioctl(slow->faults, UFFDIO_ZEROPAGE, &zero);
    }
    return NULL;
}

/* Holds the socket's lock in send(2), for 0.7 s each time. */
static void *send_slowly(void *argument)
{
    const struct slow_page *slow = argument;

    while (!shared->is_released) {
        send(slow->socket, slow->page, 1, MSG_NOSIGNAL);
        madvise(slow->page, 4096, MADV_DONTNEED);
    }
    return wait_for_ever(NULL);
}

static void send_all_slowly(int first)
{
    static struct slow_page slow[SLOW_SOCKETS];
    pthread_t thread;

    for (int i = 0; i < SLOW_SOCKETS; i++) {
        struct uffdio_api api = {.api = UFFD_API};
        slow[i].socket = first + i;
        slow[i].page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        slow[i].faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
        struct uffdio_register range = {{(uintptr_t)slow[i].page, 4096}, UFFDIO_REGISTER_MODE_MISSING, 0};
        if (slow[i].faults < 0 || ioctl(slow[i].faults, UFFDIO_API, &api) || ioctl(slow[i].faults, UFFDIO_REGISTER, &range))
            fail("userfaultfd");
        if (pthread_create(&thread, NULL, bring_page, &slow[i]) || pthread_create(&thread, NULL, send_slowly, &slow[i]))
            fail("pthread_create");
    }
}

/* Executes FOLDER/beremote: the ordinary one, or that of the server's mount namespace. */
static void execute_program(int fd, bool is_far)
{
    char path[4096], number[16];

    snprintf(path, sizeof path, "/proc/%d/ns/mnt", server);
    if (is_far) {
        int namespace = open(path, O_RDONLY | O_CLOEXEC);
        if (namespace < 0 || setns(namespace, CLONE_NEWNS) < 0)
            fail("setns");
    }
    snprintf(path, sizeof path, "%s/%s", folder, PROGRAM_FILE);
    snprintf(number, sizeof number, "%d", fd);
    fcntl(fd, F_SETFD, 0);
    execl(path, PROGRAM_FILE, "agent", number, (char *)NULL);
    fail("execl");
}

static void execute_far_program(int fd) { execute_program(fd, true); }
static void execute_near_program(int fd) { execute_program(fd, false); }

/* The program after execute_program. Its pages come while the server lives. */
_Noreturn static void be_executed(int fd)
{
    if (mlockall(MCL_CURRENT) < 0 || write(fd, "x", 1) != 1)
        _exit(1);
    for (;;)
        pause();
}

/* ---- the scenes: each returns the process at which calls hang ---------------------- */

static void die_after_preparation(void)
{
    wait_for(&shared->is_prepared);
    let_file_server_die();
    shared->may_hang = 1;
}

static void wait_for_hang(void)
{
    while (unanswered_requests() == 0)
        usleep(500);
    usleep(20000);
}

static pid_t scene_child(void)
{
    int fd, peer;
    pid_t agent = start(start_helper, &fd, &peer);

    count_as_healthy(agent, fd);
    die_after_preparation();
    wait_for_hang();
    return shared->hanging;
}

static pid_t scene_stranger(void)
{
    int fd = connection(&(int){0});

    start_agent("stranger", &fd, 1, start_helper);
    close(fd);
    int peer;
    pid_t agent = start(open_unconnected, &fd, &peer);
    count_as_healthy(agent, fd);
    wait_for(&shared->has_unconnected);
    die_after_preparation();
    wait_for_hang();
    return shared->hanging;
}

/* More of them than one run can find out about, one after the other. They are in the namespace of the agents. */
static pid_t scene_strangers(void)
{
    int fd = connection(&(int){0});

    start_agent("stranger", &fd, 1, start_many_helpers);
    close(fd);
    die_after_preparation();
    while (unanswered_requests() < STRANGERS)
        usleep(500);
    usleep(20000);
    return shared->hanging;
}

static pid_t scene_elsewhere(void)
{
    int fd, peer;
    pid_t agent = start(open_unconnected, &fd, &peer);

    count_as_healthy(agent, fd);
    wait_for(&shared->has_unconnected);
    return scene_strangers();
}

static pid_t start_slow_agent(void)
{
    int fds[SLOW_SOCKETS], peer;

    for (int i = 0; i < SLOW_SOCKETS; i++) {
        int fd = connection(&peer);
        /* One after the other. */
        fds[i] = fcntl(fd, F_DUPFD_CLOEXEC, 100);
        close(fd);
    }
    pid_t agent = start_agent("beremote", fds, SLOW_SOCKETS, send_all_slowly);
    for (int i = 0; i < SLOW_SOCKETS; i++)
        close(fds[i]);
    usleep(50000);
    return agent;
}

static pid_t scene_slow(void)
{
    return start_slow_agent();
}

/* Root's, so that none of them says anything about the next one. */
static pid_t scene_slows(void)
{
    pid_t first = start_slow_agent();

    for (int i = 1; i < 8; i++)
        start_slow_agent();
    return first;
}

static pid_t scene_program(void)
{
    int fd, peer;
    char byte;
    pid_t far = start(execute_far_program, &fd, &peer);

    if (read(peer, &byte, 1) != 1)
        fail("read");
    let_file_server_die();
    pid_t near = start(execute_near_program, &fd, &peer);
    if (read(peer, &byte, 1) != 1)
        fail("read");
    count_as_healthy(near, fd);
    return far;
}

static pid_t scene_seize(void)
{
    int fd, peer, status;
    pid_t agent = start(start_threads, &fd, &peer);

    wait_for(&shared->traced);
    if (ptrace(PTRACE_SEIZE, shared->traced, 0, PTRACE_O_TRACEEXIT) < 0)
        fail("ptrace");
    shared->may_hang = 1;
    while (waitpid(shared->traced, &status, __WALL) < 0 || status >> 8 != (SIGTRAP | PTRACE_EVENT_EXIT << 8))
        continue;
    usleep(20000);
    return agent;
}

static pid_t prepared_agent(void (*body)(int fd))
{
    int fd, peer;
    pid_t agent = start(body, &fd, &peer);

    die_after_preparation();
    return agent;
}

static pid_t scene_code(void)
{
    return prepared_agent(map_missing_code);
}

static pid_t scene_lock(void)
{
    pid_t agent = prepared_agent(send_missing_pages);

    wait_for_hang();
    return agent;
}

/* So many that the run shares them out among threads. One of them, in their middle, is locked. */
static pid_t scene_many(void)
{
    struct rlimit limit = {SESSIONS_MAX, SESSIONS_MAX};
    int fds[MANY_SOCKETS], peer;

    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        fail("setrlimit");
    for (int i = 0; i < MANY_SOCKETS; i++)
        fds[i] = connection(&peer);
    int locked = fds[MANY_SOCKETS / 2];
    fds[MANY_SOCKETS / 2] = fds[0];
    fds[0] = locked;
    pid_t agent = start_agent("beremote", fds, MANY_SOCKETS, send_missing_pages);
    die_after_preparation();
    wait_for_hang();
    return agent;
}

static void write_cgroup(const char *file, const char *text)
{
    char path[4096];

    snprintf(path, sizeof path, "%s/%s", cgroup, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        fail(path);
    close(fd);
}

static void freeze(const pid_t *pids, int count)
{
    char text[256] = "", path[4096];

    for (int i = 0; i < count; i++) {
        snprintf(text, sizeof text, "%d", pids[i]);
        write_cgroup("cgroup.procs", text);
    }
    write_cgroup("cgroup.freeze", "1");
    is_frozen = true;
    snprintf(path, sizeof path, "%s/cgroup.events", cgroup);
    do {
        usleep(1000);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t size = read(fd, text, sizeof text - 1);
        text[size < 0 ? 0 : size] = '\0';
        close(fd);
    } while (!strstr(text, "frozen 1"));
}

static pid_t scene_frozen(void)
{
    int fds[FROZEN_SOCKETS], peer;

    for (int i = 0; i < FROZEN_SOCKETS; i++)
        fds[i] = connection(&peer);
    pid_t agent = start_agent("beremote", fds, FROZEN_SOCKETS, do_nothing);
    freeze(&agent, 1);
    return agent;
}

static pid_t scene_holders(void)
{
    pid_t holders[FROZEN_HOLDERS];
    int peer, fd = connection(&peer);

    for (int i = 0; i < FROZEN_HOLDERS; i++)
        holders[i] = start_agent("beremote", &fd, 1, do_nothing);
    freeze(holders, FROZEN_HOLDERS);
    return holders[0];
}

static pid_t scene_files(void)
{
    let_file_server_die();
    return 0;
}

/* The server takes no request: a signal that kills ends such a wait. */
static pid_t scene_stopped(void)
{
    kill(server, SIGSTOP);
    return 0;
}

static const struct {
    const char *name;
    pid_t (*scene)(void);
} scenes[] = {
    {"child", scene_child}, {"stranger", scene_stranger}, {"strangers", scene_strangers},
    {"elsewhere", scene_elsewhere}, {"slow", scene_slow}, {"slows", scene_slows}, {"program", scene_program},
    {"seize", scene_seize}, {"code", scene_code}, {"lock", scene_lock}, {"many", scene_many},
    {"frozen", scene_frozen}, {"holders", scene_holders},
    {"files", scene_files}, {"stopped", scene_stopped},
};

/* ---- the end --------------------------------------------------------------------- */

static void release(void)
{
    shared->is_released = 1;
    if (is_frozen)
        write_cgroup("cgroup.freeze", "0");
    if (shared->traced)
        ptrace(PTRACE_DETACH, shared->traced, 0, 0);
    shared->traced = 0;
    if (server > 0) {
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
    }
    server = 0;
    umount2(folder, MNT_DETACH);
}

static void turn_off(void)
{
    for (int i = 0; i < healthy_count; i++)
        setsockopt(healthy[i].fd, SOL_SOCKET, SO_KEEPALIVE, &(int){0}, sizeof(int));
}

/* The server first: what hangs cannot be killed before. */
static void end_all(void)
{
    release();
    for (int i = 0; i < agent_count; i++) {
        kill(agents[i], SIGKILL);
        waitpid(agents[i], NULL, __WALL);
    }
}

static void copy_program(void)
{
    char command[8192];

    /* A process of its own: a file that is open for writing cannot be executed. */
    snprintf(command, sizeof command, "cp /proc/%d/exe '%s/%s'", getpid(), folder, PROGRAM_FILE);
    if (system(command) != 0)
        fail("cp");
}

int main(int argc, char **argv)
{
    char line[64];
    unsigned i = 0;

    if (argc == 3 && strcmp(argv[1], "agent") == 0)
        be_executed(atoi(argv[2]));
    while (argc > 2 && i < sizeof scenes / sizeof *scenes && strcmp(scenes[i].name, argv[1]) != 0)
        i++;
    if (argc < 3 || i == sizeof scenes / sizeof *scenes)
        usage("hang SCENE FOLDER [CGROUP]");
    folder = argv[2];
    cgroup = argv[argc - 1];
    signal(SIGPIPE, SIG_IGN);
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    address_length = parse_address("127.0.0.1", PORT, &address);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (void *)&address, address_length) < 0 || listen(listener, SESSIONS_MAX) < 0)
        fail("listen");
    bool has_namespace = scenes[i].scene == scene_program;
    if (has_namespace)
        copy_program();
    server = start_file_server(folder, "/proc/self/exe", has_namespace);
    pid_t hanging = scenes[i].scene();
    if (healthy_count == 0 || scenes[i].scene == scene_child)
        start_healthy();
    printf("ready %d", hanging);
    for (int k = 0; k < healthy_count; k++)
        printf(" %d:%d", healthy[k].pid, healthy[k].fd);
    say("");
    while (fgets(line, sizeof line, stdin)) {
        if (strcmp(line, "off\n") == 0)
            turn_off();
        if (strcmp(line, "release\n") == 0)
            release();
        say("done");
    }
    end_all();
    return 0;
}
