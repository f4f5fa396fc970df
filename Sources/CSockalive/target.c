/*
 * What can be known of a target without stopping it: its threads, its code, its stacks.
 * All of it is read from text and memory that the target controls in part: every size is
 * bounded, and whatever matters is checked again while the thread is held.
 */
#if defined(__x86_64__)
#include "remote_call.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_THREADS 4096
#define MAX_MAPPINGS (1 << 17) /* vm.max_map_count is 65530 unless somebody raised it */
#define MAX_CODE_BYTES (256ul << 20)
#define COMFORTABLE_ROOM 16384 /* more than any frame without AMX */
#define BEST_RANK 5
#define THREAD_BLOCK_MAX 8192
#define CHUNK (256u << 10)
#define CHUNK_OVERLAP 16u /* longer than any instruction sequence looked for */

/* Reads a small /proc file of one thread as a string; its length, or -errno. */
static ssize_t read_thread_file(pid_t pid, pid_t tid, const char *name, char *text, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/%s", pid, tid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t length = read(fd, text, size - 1);
    int error = errno;
    close(fd);
    if (length < 0)
        return -error;
    text[length] = '\0';
    return length;
}

bool target_is_socket(const struct target *target, pid_t tid, int fd)
{
    char path[80], link[64], wanted[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/fd/%d", target->pid, tid, fd);
    snprintf(wanted, sizeof wanted, "socket:[%llu]", (unsigned long long)target->inode);
    ssize_t length = readlink(path, link, sizeof link - 1);
    if (length < 0)
        return false;
    link[length] = '\0';
    return strcmp(link, wanted) == 0;
}

const struct span *target_main_stack(const struct target *target)
{
    for (size_t i = 0; i < target->stack_count; i++) {
        if (target->stacks[i].main)
            return &target->stacks[i].span;
    }
    return NULL;
}

bool target_has_stack(const struct target *target, uint64_t top, uint64_t thread_pointer, size_t size)
{
    for (size_t i = 0; i < target->stack_count; i++) {
        const struct stack *stack = &target->stacks[i];
        if (top <= stack->span.start || top > stack->span.end)
            continue;
        /* glibc and musl put the thread's own block at the very end of the stack that they allocate. */
        bool own = thread_pointer >= top && stack->span.end - thread_pointer <= THREAD_BLOCK_MAX;
        return (stack->main || own || thread_pointer == 0) && top - stack->span.start >= size;
    }
    return false;
}

bool target_is_single(const struct target *target)
{
    char path[32];
    struct stat tasks;
    snprintf(path, sizeof path, "/proc/%d/task", target->pid);
    /* Its links are ".", "..", and one a thread (proc_task_getattr). */
    return stat(path, &tasks) == 0 && tasks.st_nlink == 3;
}

/* The state letter: behind the *last* ')', for a name may hold any byte. */
static char thread_state(pid_t pid, pid_t tid)
{
    char text[1024];
    if (read_thread_file(pid, tid, "stat", text, sizeof text) < 0)
        return 'X';
    const char *end = strrchr(text, ')');
    return end && end[1] == ' ' ? end[2] : 'X';
}

/* The stack pointer of a thread that is not running, the last but one number of its `syscall`; else 0. */
static uint64_t thread_stack_pointer(pid_t pid, pid_t tid)
{
    char text[256];
    if (read_thread_file(pid, tid, "syscall", text, sizeof text) < 0)
        return 0;
    char *last = strrchr(text, ' ');
    if (!last)
        return 0;
    *last = '\0';
    const char *sp = strrchr(text, ' ');
    return sp ? strtoull(sp, NULL, 16) : 0;
}

/*
 * How willingly a thread is held; 0: never. One asleep stops soonest, and it is known whether there
 * is room on its stack; the main thread has a stack of its own even while it stands on another.
 */
static int rank_thread(const struct target *target, pid_t tid, char state)
{
    bool asleep = state == 'S' || state == 'T';
    if (asleep && target_has_stack(target, thread_stack_pointer(target->pid, tid), 0, COMFORTABLE_ROOM))
        return BEST_RANK;
    if (asleep || state == 'R')
        return tid == target->pid ? 4 : asleep ? 2 : 3;
    return state == 't'; /* traced already: the seize will say so. D does not stop, Z and X are dead */
}

/* Of the threads whose own descriptor table holds the socket, the one to hold. */
static int choose_thread(struct target *target, enum sockalive_stage *stage)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/task", target->pid);
    DIR *tasks = opendir(path);
    *stage = SOCKALIVE_STAGE_CHOOSE_THREAD;
    if (!tasks)
        return errno == ENOENT ? -ESRCH : -errno;
    int best = 0, enough = target->stack_count ? BEST_RANK : 1, error = -ESRCH;
    const struct dirent *entry;
    for (int seen = 0; seen < MAX_THREADS && best < enough && (entry = readdir(tasks)); seen++) {
        pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
        char state = tid > 0 ? thread_state(target->pid, tid) : 'X';
        int rank = rank_thread(target, tid, state);
        if (state == 'D' && error == -ESRCH)
            error = -EBUSY;
        if (rank <= best)
            continue;
        if (!target_is_socket(target, tid, target->fd)) {
            error = -ESTALE;
            continue;
        }
        best = rank;
        target->tid = tid;
    }
    closedir(tasks);
    if (best == 0 && error == -ESTALE)
        *stage = SOCKALIVE_STAGE_DESCRIPTOR;
    return best ? 0 : error;
}

/* What follows "\nName:\t" in status, or NULL. A newline in the process's own name is escaped there. */
static const char *status_value(const char *status, const char *name)
{
    const char *line = strstr(status, name);
    return line ? line + strlen(name) : NULL;
}

static uint64_t status_number(const char *status, const char *name, int base)
{
    const char *value = status_value(status, name);
    return value ? strtoull(value, NULL, base) : 0;
}

/* A free number at the end of the descriptor table that the kernel has allocated already. */
static int spare_descriptor(const struct target *target, uint64_t table_size)
{
    char path[80];
    struct rlimit limit;
    if (prlimit(target->pid, RLIMIT_NOFILE, NULL, &limit) == 0 && limit.rlim_cur < table_size)
        table_size = limit.rlim_cur;
    for (uint64_t fd = table_size; fd-- > table_size / 2 && fd < INT32_MAX;) {
        snprintf(path, sizeof path, "/proc/%d/task/%d/fd/%d", target->pid, target->tid, (int)fd);
        if (access(path, F_OK) < 0 && errno == ENOENT)
            return (int)fd;
    }
    return (int)table_size;
}

static int read_status(struct target *target)
{
    char text[8192];
    ssize_t length = read_thread_file(target->pid, target->tid, "status", text, sizeof text);
    if (length < 0)
        return (int)length;
    target->seccomp = status_number(text, "\nSeccomp:\t", 10) != 0;
    target->handled = status_number(text, "\nSigBlk:\t", 16) | status_number(text, "\nSigCgt:\t", 16);
    target->spare = spare_descriptor(target, status_number(text, "\nFDSize:\t", 10));
    const char *features = status_value(text, "\nx86_Thread_features:\t"), *ids = status_value(text, "\nNSpid:\t");
    target->shadow_stack = features && strstr(features, "shstk"); /* x86_Thread_features_locked may say so too */
    for (; ids && *ids != '\n' && *ids; ids += strcspn(ids + 1, "\t\n") + 1)
        target->own_tid = (pid_t)strtol(ids, NULL, 10); /* one for each nested namespace, the innermost last */
    return 0;
}

static int read_kind(struct target *target)
{
    char path[64];
    uint8_t elf[20];
    snprintf(path, sizeof path, "/proc/%d/task/%d/exe", target->pid, target->tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t length = read(fd, elf, sizeof elf);
    close(fd);
    return length == sizeof elf ? arch_kind_of(elf, &target->code.kind) : -EOPNOTSUPP;
}

/* One line of maps: "start-end rwxp offset major:minor inode   path". */
struct mapping {
    struct span span;
    char rights[5];
    bool file;
    const char *path;
};

static bool parse_mapping(const char *line, struct mapping *mapping)
{
    unsigned long long start, end, inode;
    int path = 0;
    if (sscanf(line, "%llx-%llx %4s %*x %*x:%*x %llu %n", &start, &end, mapping->rights, &inode, &path) < 4 ||
        path == 0 || start >= end)
        return false;
    mapping->span = (struct span){start, end};
    mapping->file = inode != 0;
    mapping->path = line + path;
    return true;
}

/*
 * Notes the stacks, and the code from which nothing will be taken away: mapped from a file
 * or by the kernel, and not writable, as what a just-in-time compiler makes would be.
 * A stack is the main thread's, or what has a guard page right below it and the thread's
 * own block right at its end (see target_has_stack). Elsewhere (a goroutine's or a
 * coroutine's stack, carved out of a heap) the memory below the stack pointer may be
 * another thread's already.
 */
static int read_mappings(struct target *target, struct span *code, size_t *code_count)
{
    char path[64], *line = NULL;
    size_t size = 0;
    uint64_t guard_end = 0;
    struct mapping mapping;
    snprintf(path, sizeof path, "/proc/%d/task/%d/maps", target->pid, target->tid);
    FILE *maps = fopen(path, "re");
    if (!maps)
        return -errno;
    /* The kernel writes a newline in a path as \012, so a line is a mapping. */
    for (int seen = 0; seen < MAX_MAPPINGS && getline(&line, &size, maps) > 0; seen++) {
        if (!parse_mapping(line, &mapping))
            continue;
        bool fixed = mapping.file || strcmp(mapping.path, "[vdso]\n") == 0;
        bool is_main = strcmp(mapping.path, "[stack]\n") == 0;
        bool stack = is_main || (!mapping.file && guard_end == mapping.span.start);
        if (strcmp(mapping.rights, "r-xp") == 0 && fixed)
            code[(*code_count)++ % TARGET_SPANS] = mapping.span;
        if (strncmp(mapping.rights, "rw-p", 4) == 0 && stack)
            target->stacks[target->stack_count++ % TARGET_SPANS] = (struct stack){mapping.span, is_main};
        if (strcmp(mapping.rights, "---p") == 0)
            guard_end = mapping.span.end;
    }
    free(line);
    fclose(maps);
    if (target->stack_count > TARGET_SPANS)
        target->stack_count = TARGET_SPANS;
    return 0;
}

static bool search(struct target *target, const struct span *span, uint8_t *chunk, uint64_t *budget)
{
    for (uint64_t at = span->start; at < span->end && *budget >= CHUNK; at += CHUNK - CHUNK_OVERLAP) {
        size_t size = span->end - at < CHUNK ? (size_t)(span->end - at) : CHUNK;
        struct iovec here = {chunk, size}, there = {(void *)at, size};
        ssize_t got = process_vm_readv(target->tid, &here, 1, &there, 1, 0);
        if (got <= 0)
            return false;
        *budget -= CHUNK;
        if (arch_find_code(&target->code, chunk, (size_t)got, at))
            return true;
        if (size < CHUNK)
            return false;
    }
    return false;
}

/* From the top: the vDSO, the loader and libc lie there, and are smaller than the program. */
static void find_code(struct target *target, const struct span *code, size_t count, uint8_t *chunk)
{
    uint64_t budget = MAX_CODE_BYTES;
    size_t oldest = count > TARGET_SPANS ? count - TARGET_SPANS : 0;
    while (count > oldest && !search(target, &code[--count % TARGET_SPANS], chunk, &budget))
        ;
}

int target_inspect(struct target *target, enum sockalive_stage *stage)
{
    struct span *code = malloc(TARGET_SPANS * sizeof *code);
    uint8_t *chunk = malloc(CHUNK);
    size_t count = 0;
    *stage = SOCKALIVE_STAGE_PREPARE;
    /* Any thread first, for its view of the memory: the main thread may be a zombie, which has none. */
    int error = code && chunk ? choose_thread(target, stage) : -ENOMEM;
    if (error == 0)
        error = read_mappings(target, code, &count);
    if (error == 0)
        error = choose_thread(target, stage);
    if (error)
        goto out;
    *stage = SOCKALIVE_STAGE_PREPARE;
    error = read_kind(target);
    if (error == -EOPNOTSUPP)
        *stage = SOCKALIVE_STAGE_UNSUPPORTED;
    if (error == 0)
        error = read_status(target);
    if (error)
        goto out;
    find_code(target, code, count, chunk);
    error = target->code.call ? 0 : -ENOEXEC;
out:
    free(code);
    free(chunk);
    if (error == -ENOENT || error == -ESRCH) {
        *stage = SOCKALIVE_STAGE_CHOOSE_THREAD;
        error = -ESRCH;
    }
    return error;
}
#endif
