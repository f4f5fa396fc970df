/*
 * The program that an attacker wants to control: set-user-ID root, static, at fixed addresses.
 *
 *   privileged FOLDER MILLISECONDS [SHARED]     lives for this time, and reports in FOLDER
 *
 *   FOLDER/user     the function that is never called has run; the file has the effective user
 *   FOLDER/words    the number of foreign words in its memory
 */
#define _GNU_SOURCE
#include "../common/attack.h"

#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

__attribute__((section(".area,\"aw\",@nobits#"), used)) static volatile uint64_t area[AREA_SIZE / 8];
static char user_path[256], words_path[256];
__attribute__((used)) static char own_stack[65536] __attribute__((aligned(64)));

static void write_number(const char *path, unsigned long number)
{
    char text[32];
    int fd = (int)syscall(SYS_open, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int length = 0;
    char digits[24];

    do
        digits[length++] = (char)('0' + number % 10);
    while (number /= 10);
    for (int i = 0; i < length; i++)
        text[i] = digits[length - 1 - i];
    text[length] = '\n';
    syscall(SYS_write, fd, text, length + 1);
    syscall(SYS_close, fd);
}

/* For a thread that is diverted at its very first instruction: of the C library only system calls are ready. */
static void enter_folder(void)
{
    static volatile char words[1024];
    int fd = (int)syscall(SYS_open, "/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    const volatile char *folder = words;

    syscall(SYS_read, fd, words, sizeof words - 1);
    syscall(SYS_close, fd);
    while (*folder++)
        ;
    syscall(SYS_chdir, folder);
}

__attribute__((used)) static void win_body(void)
{
    if (!user_path[0])
        enter_folder();
    write_number(user_path[0] ? user_path : "user", (unsigned long)syscall(SYS_geteuid));
    syscall(SYS_exit_group, 0);
}

/* At CODE_ADDRESS, after some nops: any program counter near there leads to it. It has its own stack. */
__asm__(".section .win,\"ax\",@progbits\n"
        ".fill 256, 1, 0x90\n"
        "lea own_stack+65472(%rip), %rsp\n"
        "xor %ebp, %ebp\n"
        "call win_body\n"
        "hlt\n"
        ".fill 8192, 1, 0x90\n"
        ".text\n");

static long milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 64;
    snprintf(user_path, sizeof user_path, "%s/user", argv[1]);
    snprintf(words_path, sizeof words_path, "%s/words", argv[1]);
    struct shared *shared = argc > 3 ? map_shared(argv[3]) : NULL;
    if (shared)
        shared->done = 1;
    for (long end = milliseconds() + atol(argv[2]); milliseconds() < end;) {
        unsigned long words = 0;
        for (size_t i = 0; i < AREA_SIZE / 8; i++)
            words += area[i] != 0;
        if (words > 0) {
            write_number(words_path, words);
            break;
        }
        usleep(1000);
    }
    for (long end = milliseconds() + atol(argv[2]); milliseconds() < end;)
        usleep(1000);
    return 0;
}
