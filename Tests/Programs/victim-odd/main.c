/*
 * Echoes the data of one TCP connection, in a state that is difficult for an injection.
 *
 *   victim-odd HOW     prints "PID FD PORT"; the peer connects to PORT on 127.0.0.1
 *
 *   plain          one thread, asleep in read
 *   threads        the main thread is asleep; others open and close descriptors without pause
 *   own-table      the echoing thread has its own descriptor table; other threads do not have the socket
 *   zombie-main    the main thread has exited
 *   relay          the same, and each thread that echoes ends after 8 ms, when it has started the next one
 *   vfork          the parent waits uninterruptibly for a child that echoes
 *   coroutine      the stack pointer is in memory from malloc, right above data that others use
 *   one-coroutine  the same without other threads
 *   deep           the same, and the main thread's own stack has been used to its lowest part
 *   dispatch       its own system calls are signals, except those of the one function that echoes
 *   seccomp        a filter kills the process for getsockopt, setsockopt, fcntl and mmap
 *   swap           replaces FD by another file, and by the connection again, without pause
 *   rseq           spins in restartable sequences
 *   busy-main      the main thread makes no system call; another one echoes and never sleeps
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static int connection;

/* The data below a coroutine's stack. */
#define BLOCK_SIZE 65536
static uint8_t *block;

static void check_block(void)
{
    for (size_t i = 0; block && i < BLOCK_SIZE; i++)
        if (block[i] != 0x5a) {
            fprintf(stderr, "victim-odd: memory below the stack pointer was changed\n");
            _exit(8);
        }
}

static void echo_until_end(void)
{
    char bytes[256];
    ssize_t got;
    while (check_block(), (got = read(connection, bytes, sizeof bytes)) > 0)
        if (write(connection, bytes, (size_t)got) != got)
            _exit(3);
    _exit(got == 0 ? 0 : 4);
}

static void *echo_thread(void *unused)
{
    echo_until_end();
    return unused;
}

static void start_thread(void *(*body)(void *), void *argument)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, argument) != 0)
        _exit(5);
}

static void *churn(void *unused)
{
    for (;;) {
        int fd = open("/dev/null", O_RDONLY), other = dup(fd);
        if (fd < 0 || other < 0 || close(fd) < 0 || close(other) < 0)
            _exit(6);
    }
    return unused;
}

static void *relay(void *unused)
{
    struct pollfd input = {.fd = connection, .events = POLLIN};
    char byte;
    pthread_detach(pthread_self());
    if (poll(&input, 1, 8) > 0 && (read(connection, &byte, 1) != 1 || write(connection, &byte, 1) != 1))
        _exit(0);
    start_thread(relay, NULL);
    return unused;
}

static void *echo_own_table(void *ready)
{
    if (unshare(CLONE_FILES) < 0)
        _exit(7);
    *(volatile int *)ready = 1;
    echo_until_end();
    return NULL;
}

static void run_own_table(void)
{
    static volatile int ready;
    start_thread(echo_own_table, (void *)&ready);
    while (!ready)
        usleep(1000);
    /* In the main thread's table the number is now another file. */
    int null = open("/dev/null", O_RDONLY);
    dup2(null, connection);
    for (;;)
        pause();
}

static void run_vfork(void)
{
    if (vfork() == 0)
        echo_until_end();
    for (;;)
        pause();
}


static void *check_always(void *unused)
{
    for (;;)
        check_block();
    return unused;
}

/* The kernel gives a program an initial stack of 128 KB, and extends it on use (mm/mmap.c, expand_stack). */
static void use_stack(void)
{
    volatile char deep[256 * 1024];
    for (size_t i = 0; i < sizeof deep; i++)
        deep[i] = 0x77;
}

static void run_coroutine(int alone)
{
    static ucontext_t here, there;
    char byte;
    /* Makes the loader resolve these now, because it needs much stack. */
    if (read(-1, &byte, 1) >= 0 || write(-1, &byte, 1) >= 0)
        _exit(2);
    block = malloc(2 * BLOCK_SIZE);
    memset(block, 0x5a, BLOCK_SIZE);
    getcontext(&there);
    /* A small stack: data of an injection below the stack pointer would reach into the checked half. */
    there.uc_stack.ss_sp = block + BLOCK_SIZE;
    there.uc_stack.ss_size = 4096;
    there.uc_link = NULL;
    makecontext(&there, echo_until_end, 0);
    if (!alone)
        start_thread(check_always, NULL);
    swapcontext(&here, &there);
}

static void run_seccomp(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getsockopt, 5, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setsockopt, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_tkill, 2, 0),
#ifdef SYS_mmap
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 1, 0),
#endif
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        _exit(9);
    echo_until_end();
}

#if defined(__x86_64__)
/* PR_SET_SYSCALL_USER_DISPATCH (Linux 5.11): a call from outside one page becomes a SIGSYS. */
static char selector;

__attribute__((noinline, section(".text.dispatch"), aligned(4096))) static void echo_by_own_calls(int fd, char *byte)
{
    for (;;) {
        long got;
        __asm__ volatile("syscall" : "=a"(got) : "0"(SYS_read), "D"(fd), "S"(byte), "d"(1L) : "rcx", "r11", "memory");
        if (got == 1)
            __asm__ volatile("syscall" : "=a"(got) : "0"(SYS_write), "D"(fd), "S"(byte), "d"(1L) : "rcx", "r11", "memory");
        if (got != 1)
            __asm__ volatile("syscall" : : "a"(SYS_exit_group), "D"(0) : "rcx", "r11", "memory");
    }
}

static void run_dispatch(void)
{
    char byte;
    if (prctl(59, 1, (unsigned long)echo_by_own_calls, 4096UL, &selector) < 0)
        _exit(9);
    selector = 1; /* SYSCALL_DISPATCH_FILTER_BLOCK */
    echo_by_own_calls(connection, &byte);
}
#else
static void run_dispatch(void) { echo_until_end(); }
#endif

static void *swap(void *unused)
{
    int null = open("/dev/null", O_RDONLY), spare = dup(connection);
    for (;;) {
        dup2(null, connection);
        dup2(spare, connection);
    }
    return unused;
}

static void run_swap(void)
{
    char byte;
    int own = dup(connection);
    start_thread(swap, NULL);
    while (read(own, &byte, 1) == 1 && write(own, &byte, 1) == 1)
        ;
    _exit(0);
}

#if defined(__x86_64__)
#include <sys/rseq.h>

/*
 * A sequence that counts in two places: first in memory, then in a register that is stored at the end. If it continued
 * in the middle after an interruption that the kernel has forgotten, the two would differ.
 */
static void run_rseq(void)
{
    struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    static volatile long aborted;
    fcntl(connection, F_SETFL, O_NONBLOCK);
    for (;;) {
        long interrupted = 0;
        __asm__ volatile(
            ".pushsection __rseq_cs, \"aw\"\n.balign 32\n9: .long 0, 0\n.quad 1f, 2f - 1f, 3f\n.popsection\n"
            "lea 9b(%%rip), %%rax\n"
            "mov %%rax, %[cs]\n"
            "1: mov $200000, %%ecx\n"
            "4: cmpq $0, %[cs]\n" /* cleared inside: interrupted without an abort */
            "jne 5f\n"
            "mov $1, %[flag]\n"
            "5: dec %%ecx\n jnz 4b\n"
            "2: jmp 6f\n"
            ".byte 0x0f, 0xb9, 0x3d\n.long 0x53053053\n"
            "3: incq %[aborted]\n"
            "6:\n"
            : [cs] "+m"(area->rseq_cs), [flag] "+r"(interrupted), [aborted] "+m"(aborted)
            :
            : "rax", "rcx", "memory", "cc");
        if (interrupted) {
            fprintf(stderr, "victim-odd: a restartable sequence went on after an interruption\n");
            _exit(10);
        }
        char byte;
        ssize_t got = read(connection, &byte, 1);
        if (got == 0 || (got < 0 && errno != EAGAIN) || (got == 1 && write(connection, &byte, 1) != 1))
            _exit(0);
    }
}
#else
static void run_rseq(void) { echo_until_end(); }
#endif

static void *busy_echo(void *unused)
{
    (void)unused;
    for (;;) {
        char byte;
        ssize_t got = read(connection, &byte, 1);
        if (got == 0 || (got < 0 && errno != EAGAIN) || (got == 1 && write(connection, &byte, 1) != 1))
            _exit(0);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    const char *how = argc > 1 ? argv[1] : "plain";
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (void *)&address, sizeof address) < 0 || listen(listener, 1) < 0)
        return 1;
    getsockname(listener, (void *)&address, &length);
    printf("%d %d %d\n", getpid(), listener + 1, ntohs(address.sin_port));
    fflush(stdout);
    connection = accept(listener, NULL, NULL);
    if (strcmp(how, "threads") == 0) {
        start_thread(churn, NULL);
        start_thread(churn, NULL);
    } else if (strcmp(how, "own-table") == 0) {
        run_own_table();
    } else if (strcmp(how, "zombie-main") == 0) {
        start_thread(echo_thread, NULL);
        pthread_exit(NULL);
    } else if (strcmp(how, "relay") == 0) {
        start_thread(relay, NULL);
        pthread_exit(NULL);
    } else if (strcmp(how, "vfork") == 0) {
        run_vfork();
    } else if (strcmp(how, "coroutine") == 0) {
        run_coroutine(0);
    } else if (strcmp(how, "one-coroutine") == 0) {
        run_coroutine(1);
    } else if (strcmp(how, "deep") == 0) {
        use_stack();
        run_coroutine(1);
    } else if (strcmp(how, "seccomp") == 0) {
        run_seccomp();
    } else if (strcmp(how, "dispatch") == 0) {
        run_dispatch();
    } else if (strcmp(how, "swap") == 0) {
        run_swap();
    } else if (strcmp(how, "rseq") == 0) {
        run_rseq();
    } else if (strcmp(how, "busy-main") == 0) {
        fcntl(connection, F_SETFL, O_NONBLOCK);
        start_thread(busy_echo, NULL);
        for (volatile long rounds = 0;; rounds = rounds + 1)
            continue;
    }
    echo_until_end();
}
