/*
 * A target whose user wants to gain rights from an injection. Started as root, it first becomes that user.
 *
 *   attacker MODE SHARED FOLDER PROOF [FILE]     prints "PID FD PORT"; the peer connects to PORT on 127.0.0.1
 *
 * FOLDER has `privileged` (set-user-ID root) and `ordinary` (the same without that). PROOF is a folder for their
 * output. FILE is the number of a descriptor of a file whose pages are slow (slow pages, below).
 *
 *   rewrite-exec, rewrite-mkdir    the main thread spins; a process with the same memory changes every call of the
 *                                  frames on its stack into an execve of `privileged`, or into a mkdir of
 *                                  PROOF/folder, which a filter forbids
 *   code-exec, code-mkdir          the same by overwriting the instructions that the frames lead to
 *   table-exec, table-code         as rewrite-exec and code-exec, but the socket is in another thread's own table and
 *                                  only from time to time in the main thread's
 *   page                           sleeps in a call at the very start of a page; the page before it appears and
 *                                  disappears
 *   slow-pc, slow-section, slow-stack, slow-code
 *                                  the bytes before the program counter, the critical section of rseq(2), the stack, or
 *                                  code are on a page whose read waits until another thread has executed `privileged`
 *                                  under the same PID
 *   long-exec, long-mkdir          offers no free memory, so the injector must map some; its owner may not trace it.
 *                                  Another process holds the memory's lock meanwhile. After the call, the thread
 *                                  returns into code that executes `privileged`, or makes PROOF/folder, which a
 *                                  filter forbids
 *   other-table                    the instruction that the injector checked becomes `int $0x80`, so the kernel takes
 *                                  the number of mmap as that of link: PROOF/link, which a filter forbids
 *   linked                         executes FOLDER/beremote, a link to `privileged`, with the socket inherited
 *   echoes                         one thread that its owner may trace; it does nothing else
 *   ACTION                         echoes; another thread does the action when the injector's library sets `now`
 *                                  (actions[])
 */
#define _GNU_SOURCE
#include "../common/attack.h"

#include <elf.h>
#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <asm/prctl.h>

#define PAGE 4096UL
#define TURNED_ADDRESS 0x28000000UL /* the attacker's call for a held thread, as code; away from the heap */
#define SCAN 32768UL /* more than any injection uses below a stack pointer */

static struct shared *shared;
static char one_byte;
static const char *mode, *shared_path;
static int connection, slow_file = -1;
static char privileged_path[256], ordinary_path[256], proof_path[256], folder_path[300], linked_path[256];
static char *exec_arguments[] = {privileged_path, proof_path, "2500", NULL, NULL};
static char *no_environment[] = {NULL};

/* --- calls without the C library: its code may be unmapped, and its thread block may be another one --- */

static inline long call(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#define CALL3(number, a, b, c) call(number, (long)(a), (long)(b), (long)(c), 0, 0, 0)

static void rest(long microseconds)
{
    struct timespec time = {microseconds / 1000000, microseconds % 1000000 * 1000};
    CALL3(SYS_nanosleep, &time, NULL, 0);
}

static void *map_at(unsigned long address, unsigned long size, int rights)
{
    void *memory = mmap((void *)address, size, rights, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (memory == MAP_FAILED)
        exit(5);
    return memory;
}

/* --- the main thread's code and stack --- */

#define STACK_TOP (AREA_END - 16384)
/* In the page of code. The privileged program has nops there. */
#define SLEEP_OFFSET 2   /* `xor %eax,%eax; syscall; jmp back`: read(2) for ever */
#define CALL_OFFSET 14   /* `syscall; ret` */
#define SPIN_OFFSET 24   /* `jmp .` */
#define RETURN_OFFSET 40 /* `mov $15,%rax; syscall`: rt_sigreturn(2) */

/* A stack like a C library's: a guard page below, the thread's block at its end. */
static void make_stack(int file)
{
    map_at(AREA_ADDRESS - PAGE, PAGE, PROT_NONE);
    if (file < 0) {
        map_at(AREA_ADDRESS, AREA_SIZE, PROT_READ | PROT_WRITE);
    } else {
        void *slow = mmap((void *)AREA_ADDRESS, AREA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file, 0);
        if (slow == MAP_FAILED)
            exit(5);
    }
}

#ifdef FIXED
/* Linked to CODE_ADDRESS: an injector finds these instructions first, and makes its calls there. */
__asm__(".section .code,\"ax\",@progbits\n"
        ".byte 0x90, 0x90, 0x31, 0xc0, 0x0f, 0x05, 0xeb, 0xfa\n"
        ".fill 6, 1, 0x90\n"
        ".byte 0x0f, 0x05, 0xc3\n"
        ".fill 7, 1, 0x90\n"
        ".byte 0xeb, 0xfe\n"
        ".fill 14, 1, 0x90\n"
        ".byte 0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05\n"
        ".fill 4047, 1, 0x90\n"
        ".text\n");

static void make_code(void)
{
}
#else
static void make_code(void)
{
    uint8_t *code = map_at(CODE_ADDRESS, PAGE, PROT_READ | PROT_WRITE);
    memset(code, 0x90, PAGE);
    memcpy(code + SLEEP_OFFSET, "\x31\xc0\x0f\x05\xeb\xfa", 6);
    memcpy(code + CALL_OFFSET, "\x0f\x05\xc3", 3);
    memcpy(code + SPIN_OFFSET, "\xeb\xfe", 2);
    memcpy(code + RETURN_OFFSET, "\x48\xc7\xc0\x0f\0\0\0\x0f\x05", 9);
    mprotect(code, PAGE, PROT_READ | PROT_EXEC);
}
#endif

_Noreturn static void jump(unsigned long address, long rax, long rdi, long rsi, long rdx)
{
    call(SYS_arch_prctl, ARCH_SET_FS, (long)(AREA_END - PAGE), 0, 0, 0, 0);
    __asm__ volatile("mov %[stack], %%rsp\n jmp *%[code]"
                     :
                     : [stack] "b"(STACK_TOP), [code] "c"(address), "a"(rax), "D"(rdi), "S"(rsi), "d"(rdx)
                     : "memory");
    __builtin_unreachable();
}

/* Echoes by the page of code, on the fixed stack, with no thread block. */
__attribute__((noinline, no_stack_protector)) static long fixed_call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("call *%[code]"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), [code] "r"(CODE_ADDRESS + CALL_OFFSET)
                     : "rcx", "r11", "memory");
    return result;
}

__attribute__((no_stack_protector, used)) static void fixed_echo(void)
{
    static char byte;
    while (fixed_call(SYS_read, connection, (long)&byte, 1) == 1)
        fixed_call(SYS_write, connection, (long)&byte, 1);
    fixed_call(SYS_exit_group, 0, 0, 0);
}

static void echo(void)
{
    char byte;
    while (read(connection, &byte, 1) == 1 && write(connection, &byte, 1) == 1)
        ;
    _exit(0);
}

/* --- 1 and 3: another process writes to the memory of a held thread --- */

static bool rewrites_code, makes_folder;
/* Indexes after the frame's flags: r8…r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip (asm/sigcontext.h). */
enum { RDI = 14, RSI = 15, RDX = 18, RAX = 19, RSP = 21, RIP = 22, FRAME_WORDS = 40 };

/* A frame that makes a call, and not the one that restores the thread. */
static bool is_frame(const volatile uint64_t *words)
{
    return words[1] == 7 && words[2] == 0 && words[4] == 4 &&
           (words[RIP] - CODE_ADDRESS >= PAGE || words[RIP] == CODE_ADDRESS + CALL_OFFSET);
}

static void rewrite_frame(volatile uint64_t *words)
{
    if (makes_folder) {
        words[RDI] = (uint64_t)folder_path;
        words[RSI] = 0777;
        words[RAX] = SYS_mkdir;
    } else {
        words[RDI] = (uint64_t)privileged_path;
        words[RSI] = (uint64_t)exec_arguments;
        words[RDX] = (uint64_t)no_environment;
        words[RAX] = SYS_execve;
    }
}

/* The same as code: `mov $…,%rdi; mov $…,%rsi; mov $…,%rdx; mov $…,%eax; syscall; jmp .` */
static void make_turned_call(uint8_t *code)
{
    uint64_t rdi = (uint64_t)(makes_folder ? folder_path : privileged_path);
    uint64_t rsi = makes_folder ? 0777 : (uint64_t)exec_arguments, rdx = (uint64_t)no_environment;
    uint32_t rax = makes_folder ? SYS_mkdir : SYS_execve;
    memcpy(code, "\x48\xbf", 2), memcpy(code + 2, &rdi, 8);
    memcpy(code + 10, "\x48\xbe", 2), memcpy(code + 12, &rsi, 8);
    memcpy(code + 20, "\x48\xba", 2), memcpy(code + 22, &rdx, 8);
    memcpy(code + 30, "\xb8", 1), memcpy(code + 31, &rax, 4);
    memcpy(code + 35, "\x0f\x05\xeb\xfe", 4);
}

static void rewrite_code(unsigned long address, const uint8_t *turned)
{
    unsigned long page = address & ~(PAGE - 1);
    uint8_t jump_there[14] = {0xff, 0x25, 0, 0, 0, 0};
    memcpy(jump_there + 6, &turned, 8);
    CALL3(SYS_mprotect, page, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    for (size_t i = sizeof jump_there; i-- > 0;)
        *(volatile uint8_t *)(address + i) = jump_there[i];
}

/* A separate process with the same memory. It must not use the C library's thread block. */
__attribute__((no_stack_protector)) static int rewrite_always(void *turned)
{
    bool is_done = false;
    for (unsigned long round = 0;; round++) {
        if (round % 4096 == 0 && CALL3(SYS_getppid, 0, 0, 0) == 1)
            CALL3(SYS_exit, 0, 0, 0);
        volatile uint64_t *end = (uint64_t *)STACK_TOP;
        for (volatile uint64_t *words = end - SCAN / 8; words < end - FRAME_WORDS; words++) {
            if (!is_frame(words))
                continue;
            if (!rewrites_code)
                rewrite_frame(words);
            else if (!is_done)
                rewrite_code(words[RIP], turned), is_done = true;
        }
    }
    return 0;
}

static void start_rewriter(void)
{
    uint8_t *turned = map_at(TURNED_ADDRESS, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    char *stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    make_turned_call(turned);
    if (clone(rewrite_always, stack + 65536, CLONE_VM | SIGCHLD, turned) < 0)
        exit(5);
}

/* Allows setsockopt. Forbids mkdir, and any call of another table. */
static void forbid(unsigned first, unsigned second, unsigned answer, unsigned flags)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, first, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, second, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, answer),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program) < 0)
        _exit(9);
}

static int carrier[2];

/* A message in flight holds the socket. Each peek at it creates a descriptor of the socket, the lowest free one. */
static void send_connection(void)
{
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
    struct iovec bytes = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &connection, sizeof(int));
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, carrier) < 0 || sendmsg(carrier[0], &message, 0) < 0)
        exit(5);
}

/*
 * The injector finds the socket absent here, decides for ptrace, reads the list of mappings, and chooses a thread. At
 * that time the socket must be here. A long list gives more time.
 */
static void make_many_mappings(void)
{
    char *pages = mmap(NULL, 4000 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 4000 && pages != MAP_FAILED; i += 2)
        mprotect(pages + (size_t)i * PAGE, PAGE, PROT_READ);
}

static void *come_and_go(void *unused)
{
    for (unsigned round = 0;; round++) {
        char control[CMSG_SPACE(sizeof(int))], byte;
        struct iovec bytes = {&byte, 1};
        struct msghdr message = {
            .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        long length = 1000 << round / 2 % 4;
        close(connection);
        rest(length);
        recvmsg(carrier[1], &message, MSG_PEEK);
        rest(length);
    }
    return unused;
}

static void *own_table(void *unused)
{
    if (unshare(CLONE_FILES) < 0)
        _exit(7);
    shared->is_ready = 1;
    for (;;)
        pause();
    return unused;
}

static void start_thread(void *(*body)(void *), unsigned long stack)
{
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    /* No guard page, so the injector does not take it for a stack with room, and does not hold this thread. */
    if (stack)
        pthread_attr_setstack(&attributes, map_at(stack, 262144, PROT_READ | PROT_WRITE), 262144);
    if (pthread_create(&thread, &attributes, body, NULL) != 0)
        _exit(5);
}

_Noreturn static void run_rewrite(bool has_tables)
{
    int silent[2];
    make_code();
    make_stack(-1);
    /* Made now, because later it would take the connection's number. */
    if (pipe(silent) < 0)
        exit(5);
    if (makes_folder)
        forbid(SYS_mkdir, SYS_mkdirat, SECCOMP_RET_ERRNO | EPERM, 0);
    if (has_tables) {
        make_many_mappings();
        send_connection();
        start_thread(own_table, 0x41000000UL);
        while (!shared->is_ready)
            usleep(100);
        start_thread(come_and_go, 0x42000000UL);
    }
    start_rewriter();
    shared->is_ready = 2;
    if (!has_tables)
        jump(CODE_ADDRESS + SPIN_OFFSET, 0, 0, 0, 0);
    /* Asleep, with room on its stack. So the injector holds this thread, if it has the socket then. */
    jump(CODE_ADDRESS + SLEEP_OFFSET, 0, silent[0], (long)&one_byte, 1);
}

/* --- 4 and 2: a page that is not always mapped --- */

/* Sleeps in read(2). The call is the first instruction of the page after that of CODE_ADDRESS. */
_Noreturn static void sleep_at_page_start(void)
{
    uint8_t *code = map_at(CODE_ADDRESS + PAGE, PAGE, PROT_READ | PROT_WRITE);
    memcpy(code, "\x0f\x05\x31\xc0\xeb\xfa", 6); /* syscall; xor %eax,%eax; jmp back */
    mprotect(code, PAGE, PROT_READ | PROT_EXEC);
    shared->is_ready = 2;
    jump(CODE_ADDRESS + PAGE, SYS_read, connection, (long)&one_byte, 1);
}

static void *page_comes_and_goes(void *unused)
{
    for (unsigned round = 0;; round++) {
        mmap((void *)CODE_ADDRESS, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        *(volatile uint8_t *)CODE_ADDRESS;
        for (unsigned i = 0; i < round % 64; i++)
            __asm__ volatile("pause");
        munmap((void *)CODE_ADDRESS, PAGE);
        for (unsigned i = 0; i < round / 64 % 64; i++)
            __asm__ volatile("pause");
    }
    return unused;
}

static void *slow_page(unsigned long address, unsigned long size, int rights)
{
    void *page = mmap((void *)address, size, rights, MAP_PRIVATE | MAP_FIXED, slow_file, 0);
    if (page == MAP_FAILED)
        exit(5);
    return page;
}

static unsigned long slow_code;
static struct rseq *rseq_area;

/* While a read of the page waits, this thread executes another program, which takes over the PID. */
static void *execute_when_read(void *unused)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
    int stat = open(path, O_RDONLY | O_CLOEXEC);
    while (!shared->is_reading) {
        if (rseq_area && pread(stat, text, sizeof text, 0) > 0 && strstr(text, ") t"))
            *(volatile uint64_t *)((char *)rseq_area + 8) = CODE_ADDRESS + 64 * PAGE;
        if (slow_code) {
            madvise((void *)slow_code, PAGE, MADV_DONTNEED);
            posix_fadvise(slow_file, 0, PAGE, POSIX_FADV_DONTNEED);
        }
        if (!rseq_area && !slow_code)
            usleep(20);
    }
    execve(privileged_path, exec_arguments, no_environment);
    return unused;
}

_Noreturn static void run_slow(const char *what)
{
    exec_arguments[2] = "400";
    exec_arguments[3] = (char *)shared_path;
    shared->target = getpid();
    make_stack(strcmp(what, "stack") == 0 ? slow_file : -1);
    if (strcmp(what, "pc") == 0)
        slow_page(CODE_ADDRESS, PAGE, PROT_READ | PROT_EXEC);
    else
        make_code();
    if (strcmp(what, "code") == 0) {
        /* Above the loader, so it is found first. The file has all gadgets (Tests/Programs/attack). */
        slow_code = getauxval(AT_BASE) + 0x2000000;
        slow_page(slow_code, PAGE, PROT_READ | PROT_EXEC);
    }
    if (strcmp(what, "stack") == 0) /* makes the pages of the thread block and of the stack top present */
        *(volatile char *)(AREA_END - PAGE) = *(volatile char *)STACK_TOP = 0;
    if (strcmp(what, "section") == 0) {
        slow_page(CODE_ADDRESS + 64 * PAGE, PAGE, PROT_READ);
        rseq_area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
        start_thread(execute_when_read, 0);
        shared->is_ready = 2;
        jump(CODE_ADDRESS + SPIN_OFFSET, 0, 0, 0, 0);
    }
    start_thread(execute_when_read, 0);
    sleep_at_page_start();
}

/* --- a long call, and a call of another table --- */

/* The main thread's PID, for processes with the same memory: they have no thread block of their own. */
static pid_t leader;
static int leader_stat = -1;

static void open_leader_stat(void)
{
    char path[64];
    leader = getpid();
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", leader);
    if ((leader_stat = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        exit(5);
}

__attribute__((no_stack_protector)) static void await_hold(void)
{
    static char text[256];
    for (;;) {
        long length = call(SYS_pread64, leader_stat, (long)text, sizeof text, 0, 0, 0);
        if (length <= 0 || CALL3(SYS_getppid, 0, 0, 0) != leader)
            CALL3(SYS_exit, 0, 0, 0);
        for (long i = 2; i < length; i++)
            if (text[i - 2] == ')' && text[i - 1] == ' ' && text[i] == 't')
                return;
    }
}

static pid_t share_memory_with(int (*body)(void *))
{
    char *stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pid_t child = stack == MAP_FAILED ? -1 : clone(body, stack + 65536, CLONE_VM | SIGCHLD, NULL);
    if (child < 0)
        exit(5);
    return child;
}

static double seconds(void)
{
    struct timespec now;
    CALL3(SYS_clock_gettime, CLOCK_MONOTONIC, &now, 0);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/*
 * Leaves no free memory for an injector. This area has no guard page below, so it does not count as a stack. The lowest
 * part of the main thread's own stack is filled, so it has no zeros of the kernel.
 */
static void make_unusable_stack(void)
{
    char line[512];
    unsigned long start;
    map_at(AREA_ADDRESS, AREA_SIZE, PROT_READ | PROT_WRITE);
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps))
        if (strstr(line, "[stack]") && sscanf(line, "%lx", &start) == 1)
            memset((void *)start, 1, SCAN);
    if (maps)
        fclose(maps);
}

/* Seconds. An injector may wait one for the call and one for the stop after it; or three and three. */
static const double lock_times[] = {1.3, 1.3, 4, 1.3, 1.3, 6.5};
#define LOCK_TIMES (sizeof lock_times / sizeof *lock_times)
static double lock_time, exec_delay;
static pid_t lock_keeper;
static atomic_int keeps_lock;
static char *late_memory;
#define LATE_SIZE (4UL << 30) /* a tenth of a second's work, and 8 MB of page tables */

/* Holds the lock while the kernel walks all pages. */
__attribute__((no_stack_protector)) static int keep_lock(void *unused)
{
    (void)unused;
    await_hold();
    double start = seconds();
    keeps_lock = 1;
    CALL3(SYS_madvise, late_memory, LATE_SIZE, MADV_POPULATE_READ);
    shared->now = seconds() - start > 1;
    shared->done = 1;
    /* Stays: the last process with the memory would have to free it, in the middle of its execve. */
    while (CALL3(SYS_getppid, 0, 0, 0) == leader)
        rest(100000);
    CALL3(SYS_exit, 0, 0, 0);
    return 0;
}

/* Takes the processor of the lock keeper, which becomes SCHED_IDLE, so it makes almost no progress. */
__attribute__((no_stack_protector)) static int take_processor(void *unused)
{
    struct sched_param none = {0};
    (void)unused;
    while (!keeps_lock) {
        rest(100);
        if (CALL3(SYS_getppid, 0, 0, 0) != leader)
            CALL3(SYS_exit, 0, 0, 0);
    }
    rest(1000);
    CALL3(SYS_sched_setscheduler, lock_keeper, SCHED_IDLE, &none);
    for (double end = seconds() + lock_time; seconds() < end && CALL3(SYS_getppid, 0, 0, 0) == leader;)
        ;
    CALL3(SYS_exit, 0, 0, 0);
    return 0;
}

/*
 * The thread returns here from the call, if the injector does not stop it. An injector waits a second for a stop. The
 * execve must come between its last check and its next request.
 */
__attribute__((no_stack_protector, used)) static void run_freely(void)
{
    double start = seconds();
    if (makes_folder) {
        CALL3(SYS_mkdir, folder_path, 0777, 0);
    } else {
        while (seconds() < start + exec_delay)
            ;
        CALL3(SYS_execve, privileged_path, exec_arguments, no_environment);
    }
    for (;;)
        ;
}

_Noreturn static void run_long(void)
{
    cpu_set_t processors, last;
    int number = CPU_SETSIZE - 1;
    if (sched_getaffinity(0, sizeof processors, &processors) < 0)
        exit(5);
    while (!CPU_ISSET(number, &processors))
        number--;
    CPU_ZERO(&last);
    CPU_SET(number, &last);
    exec_arguments[3] = (char *)shared_path;
    lock_time = lock_times[shared->tries_before % LOCK_TIMES];
    /* Minus the time of execve itself. The exact time of the last check is a matter of luck. */
    exec_delay = 1 + (shared->tries_before % 5 * 50 - 100) / 1e6;
    late_memory = mmap(NULL, LATE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (late_memory == MAP_FAILED || madvise(late_memory, LATE_SIZE, MADV_NOHUGEPAGE) < 0)
        exit(5);
    prctl(PR_SET_DUMPABLE, 0);
    make_code();
    make_unusable_stack();
    *(uint64_t *)STACK_TOP = (uint64_t)run_freely;
    open_leader_stat();
    if (makes_folder)
        forbid(SYS_mkdir, SYS_mkdirat, SECCOMP_RET_ERRNO | EPERM, 0);
    sched_setaffinity(0, sizeof last, &last);
    lock_keeper = share_memory_with(keep_lock);
    share_memory_with(take_processor);
    sched_setaffinity(0, sizeof processors, &processors);
    shared->is_ready = 2;
    jump(CODE_ADDRESS + SPIN_OFFSET, 0, 0, 0, 0);
}

/* Above everything that the kernel maps: an injector searches there first. */
#define TOP_CODE_ADDRESS 0x7ffffffe0000UL

static volatile uint16_t *top_call;

/* Alternates between the two instructions, at a varying speed. So a check and the call may see different ones. */
__attribute__((no_stack_protector)) static int swap_table(void *unused)
{
    const unsigned length = 4U << shared->tries_before % 10;
    (void)unused;
    await_hold();
    for (unsigned long round = 1;; round++) {
        *top_call = round % 2 ? 0x80cd : 0x050f; /* `int $0x80`, `syscall` */
        for (unsigned i = 0; i < length; i++)
            __asm__ volatile("pause");
        if (round % 256 == 0 && CALL3(SYS_getppid, 0, 0, 0) != leader)
            CALL3(SYS_exit, 0, 0, 0);
    }
    return 0;
}

_Noreturn static void run_other_table(void)
{
    /* Within 32 bits: the first two arguments of the other table. */
    char *source = map_at(TURNED_ADDRESS, PAGE, PROT_READ | PROT_WRITE), *link_path = source + PAGE / 2;
    int file = memfd_create("code", MFD_CLOEXEC);
    snprintf(source, PAGE / 2, "%s/source", proof_path);
    snprintf(link_path, PAGE / 2, "%s/link", proof_path);
    close(open(source, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    if (file < 0 || ftruncate(file, PAGE) < 0)
        exit(5);
    uint8_t *code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (code == MAP_FAILED || mmap((void *)TOP_CODE_ADDRESS, PAGE, PROT_READ | PROT_EXEC,
                                   MAP_PRIVATE | MAP_FIXED_NOREPLACE, file, 0) != (void *)TOP_CODE_ADDRESS)
        exit(5);
    memcpy(code + CALL_OFFSET, "\x0f\x05\xc3", 3);
    memcpy(code + RETURN_OFFSET, "\x48\xc7\xc0\x0f\0\0\0\x0f\x05", 9);
    close(file);
    top_call = (uint16_t *)(code + CALL_OFFSET);
    make_code();
    make_unusable_stack();
    open_leader_stat();
    forbid(SYS_link, SYS_linkat, SECCOMP_RET_ERRNO | EPERM, 0);
    if (link(source, link_path) == 0)
        exit(9);
    share_memory_with(swap_table);
    shared->is_ready = 2;
    __asm__ volatile("mov %[stack], %%rsp\n jmp *%[spin]"
                     :
                     : [stack] "r"(STACK_TOP), [spin] "r"(CODE_ADDRESS + SPIN_OFFSET), "b"(source), "c"(link_path)
                     : "memory");
    __builtin_unreachable();
}

/* --- the actions of another thread at each step --- */

static void act_exec_privileged(void)
{
    execve(privileged_path, exec_arguments, no_environment);
}

static void act_exec_ordinary(void)
{
    exec_arguments[0] = ordinary_path;
    execve(ordinary_path, exec_arguments, no_environment);
}

static void act_exit_thread(void)
{
    shared->done = 1;
    CALL3(SYS_exit, 0, 0, 0);
}

static void act_exit_group(void)
{
    CALL3(SYS_exit_group, 0, 0, 0);
}

static void act_unshare_files(void)
{
    unshare(CLONE_FILES);
}

static void act_unshare_fs(void)
{
    unshare(CLONE_FS | CLONE_SYSVSEM);
}

static void act_drop(void)
{
    if (setgid(ATTACKER_USER) < 0 || setuid(ATTACKER_USER) < 0)
        _exit(11);
}

static void act_seteuid(void)
{
    if (seteuid(geteuid()) < 0 || setresuid(getuid(), geteuid(), getuid()) < 0)
        _exit(11);
}

static void act_hide(void)
{
    prctl(PR_SET_DUMPABLE, 0);
}

static void act_kill(void)
{
    kill(getpid(), SIGKILL);
}

static void act_stop(void)
{
    shared->done = 1;
    kill(getpid(), SIGSTOP);
}

/* The main thread must handle it, once. */
static void act_signal(void)
{
    syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1);
}

static void act_filter(void)
{
    forbid(SYS_mkdir, SYS_mkdirat, SECCOMP_RET_ERRNO | EPERM, SECCOMP_FILTER_FLAG_TSYNC);
}

static void act_strict_filter(void)
{
    forbid(SYS_setsockopt, SYS_getsockopt, SECCOMP_RET_KILL_PROCESS, SECCOMP_FILTER_FLAG_TSYNC);
}

static void act_close(void)
{
    close(connection);
}

static int other_connection = -1;

/* Another live connection takes the number. */
static void act_replace(void)
{
    dup2(other_connection, connection);
}

static void act_clone(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    start_thread(own_table, 0);
}

/* A child traces itself, and another child briefly traces its parent, if it may. */
static void act_trace(void)
{
    pid_t leader = getpid(), child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        _exit(0);
    }
    waitpid(child, NULL, __WALL);
    ptrace(PTRACE_CONT, child, NULL, NULL);
    waitpid(child, NULL, __WALL);
    if ((child = fork()) == 0) {
        if (ptrace(PTRACE_SEIZE, leader, NULL, NULL) == 0) {
            ptrace(PTRACE_INTERRUPT, leader, NULL, NULL);
            waitpid(leader, NULL, __WALL);
            ptrace(PTRACE_DETACH, leader, NULL, NULL);
        }
        _exit(0);
    }
    waitpid(child, NULL, __WALL);
}

#define STACK_PART 32768UL /* the part below the stack pointer that an injection may use */
#define STACK_BOTTOM ((STACK_TOP - STACK_PART) & ~(PAGE - 1))

static void act_protect_stack(void)
{
    CALL3(SYS_mprotect, STACK_BOTTOM, STACK_PART, PROT_NONE);
}

static void act_protect_stack_read(void)
{
    CALL3(SYS_mprotect, STACK_BOTTOM, STACK_PART, PROT_READ);
}

static void act_unmap_stack(void)
{
    CALL3(SYS_munmap, STACK_BOTTOM, STACK_PART, 0);
}

/* Maps other memory at the same place. */
static void act_map_stack(void)
{
    const long flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    call(SYS_mmap, (long)STACK_BOTTOM, STACK_PART, PROT_READ | PROT_WRITE, flags, -1, 0);
}

static unsigned long library_code[32][2];
static size_t library_count;

/* Finds all code except the program's own. It is unmapped later, when maps cannot be read any more. */
static void find_library_code(void)
{
    char line[512], rights[8];
    FILE *maps = fopen("/proc/self/maps", "r");
    unsigned long start, end, own = (unsigned long)&find_library_code;
    while (maps && fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %7s", &start, &end, rights) == 3 && rights[2] == 'x' && start != CODE_ADDRESS &&
            !strstr(line, "vsyscall") && !(start <= own && own < end) && library_count < 32) {
            library_code[library_count][0] = start;
            library_code[library_count++][1] = end - start;
        }
    if (maps)
        fclose(maps);
}

static void act_protect_code(void)
{
    for (size_t i = 0; i < library_count; i++)
        CALL3(SYS_mprotect, library_code[i][0], library_code[i][1], PROT_NONE);
}

static void act_unmap_code(void)
{
    for (size_t i = 0; i < library_count; i++)
        CALL3(SYS_munmap, library_code[i][0], library_code[i][1], 0);
}

#define LOWEST_WORD ((volatile uint64_t *)(STACK_TOP - SCAN))
#define HIGHEST_WORD ((volatile uint64_t *)STACK_TOP - FRAME_WORDS)

static void act_junk(void)
{
    for (volatile uint64_t *words = LOWEST_WORD; words < HIGHEST_WORD; words++)
        *words = 0x4141414141414141;
}

static void act_returns(void)
{
    for (volatile uint64_t *words = LOWEST_WORD; words < HIGHEST_WORD; words++)
        *words = TURNED_ADDRESS;
}

static void act_frames(void)
{
    for (volatile uint64_t *words = LOWEST_WORD; words < HIGHEST_WORD; words++)
        if (is_frame(words))
            rewrite_frame(words);
}

static void act_code(void)
{
    for (volatile uint64_t *words = LOWEST_WORD; words < HIGHEST_WORD; words++)
        if (is_frame(words)) {
            rewrite_code(words[RIP], (uint8_t *)(TURNED_ADDRESS));
            break;
        }
}

static void act_nothing(void)
{
}

static const struct action {
    const char *name;
    void (*act)(void);
    bool is_fixed; /* the main thread uses addresses that the privileged program has, too */
} actions[] = {
    {"nothing", act_nothing, false},
    {"exec-privileged", act_exec_privileged, true},
    {"exec-ordinary", act_exec_ordinary, true},
    {"exit-thread", act_exit_thread, false},
    {"exit-group", act_exit_group, false},
    {"clone", act_clone, false},
    {"unshare-files", act_unshare_files, false},
    {"unshare-fs", act_unshare_fs, false},
    {"drop-root", act_drop, false},
    {"seteuid", act_seteuid, false},
    {"hide", act_hide, false},
    {"trace", act_trace, false},
    {"kill", act_kill, false},
    {"stop", act_stop, false},
    {"signal", act_signal, false},
    {"filter", act_filter, false},
    {"strict-filter", act_strict_filter, false},
    {"close", act_close, false},
    {"replace", act_replace, false},
    {"protect-stack", act_protect_stack, true},
    {"protect-stack-read", act_protect_stack_read, true},
    {"unmap-stack", act_unmap_stack, true},
    {"map-stack", act_map_stack, true},
    {"protect-code", act_protect_code, true},
    {"unmap-code", act_unmap_code, true},
    {"junk", act_junk, true},
    {"returns", act_returns, true},
    {"frames", act_frames, true},
    {"code", act_code, true},
    /* The same under a filter, which forbids the call. */
    {"filtered-returns", act_returns, true},
    {"filtered-frames", act_frames, true},
    {"filtered-code", act_code, true},
};

static void (*act)(void);

__attribute__((no_stack_protector)) static void *act_when_told(void *unused)
{
    while (!shared->now)
        call(SYS_futex, (long)&shared->now, FUTEX_WAIT, 0, 0, 0, 0);
    act();
    shared->done = 1;
    for (;;)
        rest(1000000);
    return unused;
}

static void handle(int signal)
{
    (void)signal;
}

/* On its own port, which no injector selects. */
static void make_other_connection(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int here = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (void *)&address, sizeof address) < 0 || listen(listener, 1) < 0 ||
        getsockname(listener, (void *)&address, &length) < 0 || connect(here, (void *)&address, length) < 0)
        exit(5);
    other_connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    close(listener);
}

_Noreturn static void run_action(const struct action *action, int listener)
{
    struct sigaction handler = {.sa_handler = handle, .sa_flags = SA_RESTART};
    act = action->act;
    sigaction(SIGUSR1, &handler, NULL);
    if (strncmp(mode, "filtered-", 9) == 0) {
        makes_folder = true;
        forbid(SYS_mkdir, SYS_mkdirat, SECCOMP_RET_ERRNO | EPERM, 0);
    }
    exec_arguments[2] = "2500";
    exec_arguments[3] = (char *)shared_path;
    if (act == act_replace)
        make_other_connection();
    close(listener);
    make_turned_call(map_at(TURNED_ADDRESS, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC));
    if (action->is_fixed) {
        make_code();
        make_stack(-1);
    }
    start_thread(act_when_told, 0);
    if (act == act_protect_code || act == act_unmap_code)
        find_library_code();
    shared->is_ready = 2;
    if (!action->is_fixed)
        echo();
    call(SYS_arch_prctl, ARCH_SET_FS, (long)(AREA_END - PAGE), 0, 0, 0, 0);
    __asm__ volatile("mov %[stack], %%rsp\n call fixed_echo" : : [stack] "r"(STACK_TOP + 64) : "memory");
    __builtin_unreachable();
}

/* --- */

static void become_user(void)
{
    if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setresgid(ATTACKER_USER, ATTACKER_USER, ATTACKER_USER) < 0 ||
                           setresuid(ATTACKER_USER, ATTACKER_USER, ATTACKER_USER) < 0))
        exit(4);
    /* Dumpable, as any program of that user is. The change of user has also cleared PR_SET_PDEATHSIG. */
    prctl(PR_SET_DUMPABLE, 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (argc < 5 || !(shared = map_shared(argv[2])))
        return 64;
    mode = argv[1], shared_path = argv[2];
    if (strcmp(mode, "drop-root") != 0)
        become_user();
    snprintf(privileged_path, sizeof privileged_path, "%s/privileged", argv[3]);
    snprintf(ordinary_path, sizeof ordinary_path, "%s/ordinary", argv[3]);
    snprintf(linked_path, sizeof linked_path, "%s/beremote", argv[3]);
    snprintf(proof_path, sizeof proof_path, "%s", argv[4]);
    snprintf(folder_path, sizeof folder_path, "%s/folder", proof_path);
    slow_file = argc > 5 ? atoi(argv[5]) : -1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (void *)&address, sizeof address) < 0 || listen(listener, 2) < 0)
        return 1;
    getsockname(listener, (void *)&address, &length);
    /* The descriptor number that accept returns next. */
    connection = dup(listener);
    close(connection);
    printf("%d %d %d\n", getpid(), connection, ntohs(address.sin_port));
    fflush(stdout);
    if (accept(listener, NULL, NULL) != connection)
        return 1;
    if (strcmp(mode, "linked") == 0) {
        execl(linked_path, linked_path, proof_path, "20000", shared_path, (char *)NULL);
        return 1;
    }
    makes_folder = strstr(mode, "-mkdir") != NULL;
    rewrites_code = strncmp(mode, "code-", 5) == 0 || strcmp(mode, "table-code") == 0;
    if (strncmp(mode, "rewrite-", 8) == 0 || strncmp(mode, "code-", 5) == 0 || strncmp(mode, "table-", 6) == 0)
        run_rewrite(strncmp(mode, "table-", 6) == 0);
    if (strcmp(mode, "page") == 0) {
        make_stack(-1);
        start_thread(page_comes_and_goes, 0);
        sleep_at_page_start();
    }
    if (strncmp(mode, "slow-", 5) == 0)
        run_slow(mode + 5);
    if (strncmp(mode, "long-", 5) == 0)
        run_long();
    if (strcmp(mode, "other-table") == 0)
        run_other_table();
    if (strcmp(mode, "echoes") == 0)
        echo();
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++)
        if (strcmp(mode, actions[i].name) == 0)
            run_action(&actions[i], listener);
    return 64;
}
