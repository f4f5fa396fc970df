/*
 * Keeps a known value in every register that a program can use, during a spin or a blocking poll, and checks each of
 * them. It reports over the socket: every byte that arrives is answered by `k`, or by `!` after any loss.
 *
 *   victim-registers spin|poll     prints "PID FD PORT"; the peer connects to PORT on 127.0.0.1
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The assembly below uses these offsets. */
struct state {
    uint8_t vector[32][64]; /* 0 */
    uint64_t mask[8];       /* 2048 */
    uint8_t x87[8][16];     /* 2112 */
    uint32_t mxcsr, unused[3]; /* 2240 */
    uint64_t general[8];    /* 2256 */
    uint8_t red_zone[128];  /* 2320 */
    int64_t result;         /* 2448 */
};

/* Loads `in`, polls (timeout -1: for ever) or spins, stores into `out`. width: 64, 32 or 16-byte vectors. */
int live(const struct state *in, struct state *out, struct pollfd *poll, long spins, long width);

#if defined(__x86_64__)
__asm__(
    ".text\n.globl live\nlive:\n"
    "push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15\n"
    "sub $72, %rsp\n"
    "mov %rdi, (%rsp); mov %rsi, 8(%rsp); mov %rdx, 16(%rsp); mov %rcx, 24(%rsp); mov %r8, 32(%rsp)\n"
    "fninit\n"
    ".irp n,0,1,2,3,4,5,6,7\n fldt 2112+16*\\n(%rdi)\n .endr\n"
    "ldmxcsr 2240(%rdi)\n"
    "cmp $64, %r8; jne 1f\n"
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    " vmovdqu64 64*\\n(%rdi), %zmm\\n\n .endr\n"
    ".irp n,1,2,3,4,5,6,7\n kmovq 2048+8*\\n(%rdi), %k\\n\n .endr\n"
    "jmp 3f\n1: cmp $32, %r8; jne 2f\n"
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vmovdqu 64*\\n(%rdi), %ymm\\n\n .endr\n"
    "jmp 3f\n2:\n"
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n movdqu 64*\\n(%rdi), %xmm\\n\n .endr\n"
    "3:\n"
    ".irp n,0,8,16,24,32,40,48,56,64,72,80,88,96,104,112,120\n"
    " mov 2320+\\n(%rdi), %rax\n mov %rax, -128+\\n(%rsp)\n .endr\n"
    "mov 2256(%rdi), %rbx; mov 2264(%rdi), %rbp; mov 2272(%rdi), %r12; mov 2280(%rdi), %r13\n"
    "mov 2288(%rdi), %r14; mov 2296(%rdi), %r15; mov 2304(%rdi), %r10; mov 2312(%rdi), %r9\n"
    "mov 24(%rsp), %rcx\n"
    "mov 16(%rsp), %rdi; test %rdi, %rdi; jz 5f\n"
    "mov $1, %esi; mov $-1, %edx; mov $7, %eax\n" /* poll */
    "syscall\n"
    "jmp 6f\n"
    "5: dec %rcx; jnz 5b\n"
    "6: mov 8(%rsp), %rsi; mov %rax, 2448(%rsi)\n"
    "mov %rbx, 2256(%rsi); mov %rbp, 2264(%rsi); mov %r12, 2272(%rsi); mov %r13, 2280(%rsi)\n"
    "mov %r14, 2288(%rsi); mov %r15, 2296(%rsi); mov %r10, 2304(%rsi); mov %r9, 2312(%rsi)\n"
    ".irp n,0,8,16,24,32,40,48,56,64,72,80,88,96,104,112,120\n"
    " mov -128+\\n(%rsp), %rax\n mov %rax, 2320+\\n(%rsi)\n .endr\n"
    "mov 32(%rsp), %r8\n"
    "cmp $64, %r8; jne 1f\n"
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    " vmovdqu64 %zmm\\n, 64*\\n(%rsi)\n .endr\n"
    ".irp n,1,2,3,4,5,6,7\n kmovq %k\\n, 2048+8*\\n(%rsi)\n .endr\n"
    "vzeroupper; jmp 3f\n1: cmp $32, %r8; jne 2f\n"
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vmovdqu %ymm\\n, 64*\\n(%rsi)\n .endr\n"
    "vzeroupper; jmp 3f\n2:\n"
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n movdqu %xmm\\n, 64*\\n(%rsi)\n .endr\n"
    "3: stmxcsr 2240(%rsi)\n"
    ".irp n,7,6,5,4,3,2,1,0\n fstpt 2112+16*\\n(%rsi)\n .endr\n"
    "movl $0x1f80, 40(%rsp); ldmxcsr 40(%rsp); fninit; cld\n"
    "add $72, %rsp\n"
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp; xor %eax, %eax; ret\n");
#define VECTORS_16 16
#else
/* The same with the registers of 32-bit programs. The call is made like libc's, through the vDSO. */
__asm__(
    ".text\n.globl live\nlive:\n"
    "push %ebp; push %ebx; push %esi; push %edi; sub $16, %esp\n"
    "mov 36(%esp), %eax; mov 40(%esp), %edx; mov 44(%esp), %ecx\n"
    "mov %edx, (%esp); mov %ecx, 4(%esp); mov 48(%esp), %ecx; mov %ecx, 8(%esp)\n"
    "fninit\n"
    ".irp n,0,1,2,3,4,5,6,7\n fldt 2112+16*\\n(%eax)\n .endr\n"
    "ldmxcsr 2240(%eax)\n"
    "cmpl $16, 52(%esp); je 2f\n"
    ".irp n,0,1,2,3,4,5,6,7\n vmovdqu 64*\\n(%eax), %ymm\\n\n .endr\n"
    "jmp 3f\n2:\n"
    ".irp n,0,1,2,3,4,5,6,7\n movdqu 64*\\n(%eax), %xmm\\n\n .endr\n"
    "3: mov 2256(%eax), %esi; mov 2264(%eax), %edi; mov 2272(%eax), %ebp\n"
    "mov 8(%esp), %ecx; mov 4(%esp), %ebx; test %ebx, %ebx; jz 5f\n"
    "mov $1, %ecx; mov $-1, %edx; mov $168, %eax; call *%gs:0x10\n" /* poll */
    "jmp 6f\n"
    "5: dec %ecx; jnz 5b\n"
    "6: mov (%esp), %edx; mov %eax, 2448(%edx); movl $0, 2452(%edx)\n"
    "mov %esi, 2256(%edx); mov %edi, 2264(%edx); mov %ebp, 2272(%edx)\n"
    "cmpl $16, 52(%esp); je 2f\n"
    ".irp n,0,1,2,3,4,5,6,7\n vmovdqu %ymm\\n, 64*\\n(%edx)\n .endr\n"
    "vzeroupper; jmp 3f\n2:\n"
    ".irp n,0,1,2,3,4,5,6,7\n movdqu %xmm\\n, 64*\\n(%edx)\n .endr\n"
    "3: stmxcsr 2240(%edx)\n"
    ".irp n,7,6,5,4,3,2,1,0\n fstpt 2112+16*\\n(%edx)\n .endr\n"
    "movl $0x1f80, 12(%esp); ldmxcsr 12(%esp); fninit\n"
    "add $16, %esp; pop %edi; pop %esi; pop %ebx; pop %ebp; xor %eax, %eax; ret\n");
#define VECTORS_16 8
#endif

static long widest(void)
{
    __builtin_cpu_init();
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bw"))
        return 64;
#endif
    return __builtin_cpu_supports("avx") ? 32 : 16;
}

static void fill(struct state *state, uint32_t seed, long width)
{
    memset(state, 0, sizeof *state);
    for (size_t i = 0; i < (width == 64 ? 32u : VECTORS_16); i++)
        for (long byte = 0; byte < width; byte++)
            state->vector[i][byte] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
    for (int i = 1; i < 8 && width == 64; i++)
        state->mask[i] = 0x0123456789abcdefull * (seed | 1) + (unsigned)i;
    for (int i = 0; i < 8; i++) {
        long double value = 1.0L / (3 + i + seed % 1000);
        memcpy(state->x87[i], &value, 10);
    }
    state->mxcsr = 0x1f80 | (seed & 3) << 13; /* the rounding mode */
    for (int i = 0; i < (VECTORS_16 == 16 ? 8 : 3); i++)
        state->general[i] = sizeof(long) == 8 ? 0xfedcba9876543210ull ^ seed << i : (uint32_t)(seed << i);
    for (int i = 0; i < 128 && VECTORS_16 == 16; i++)
        state->red_zone[i] = (uint8_t)(seed + (unsigned)i);
}

static int serve(int port_fd, int *accepted)
{
    int fd = accept(port_fd, NULL, NULL);
    *accepted = fd;
    return fd;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int polls = argc > 1 && strcmp(argv[1], "poll") == 0, listener = socket(AF_INET, SOCK_STREAM, 0), fd;
    if (bind(listener, (void *)&address, sizeof address) < 0 || listen(listener, 1) < 0)
        return 1;
    getsockname(listener, (void *)&address, &length);
    printf("%d %d %d\n", getpid(), listener + 1, ntohs(address.sin_port));
    fflush(stdout);
    if (serve(listener, &fd) < 0)
        return 1;

    static struct state in, out;
    const long width = widest();
    int harmed = 0;
    for (uint32_t round = 1;; round++) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        fill(&in, round, width);
        memset(&out, 0, sizeof out);
        live(&in, &out, polls ? &ready : NULL, 20000, width);
        if (polls && (out.result != 1 || ready.revents == 0))
            harmed = 1;
        in.result = out.result;
        if (memcmp(&in, &out, sizeof in) != 0)
            harmed = 1;
        char bytes[256];
        ssize_t got = recv(fd, bytes, sizeof bytes, polls ? 0 : MSG_DONTWAIT);
        if (got == 0 || (got < 0 && (polls || errno != EAGAIN)))
            return got == 0 ? harmed : 1;
        memset(bytes, harmed ? '!' : 'k', got > 0 ? (size_t)got : 0);
        if (got > 0 && send(fd, bytes, (size_t)got, MSG_NOSIGNAL) != got)
            return 1;
    }
}
