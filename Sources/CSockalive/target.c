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
#include <sys/uio.h>
#include <unistd.h>

#define MAX_THREADS 4096
#define MAX_MAPPINGS (1 << 17) /* vm.max_map_count is 65530 unless somebody raised it */
#define MAX_CODE_BYTES (256ul << 20)
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

bool target_has_stack(const struct target *target, uint64_t top, size_t size)
{
    for (size_t i = 0; i < target->stack_count; i++) {
        const struct span *stack = &target->stacks[i];
        if (top > stack->start && top <= stack->end)
            return top - stack->start >= size;
    }
    return false;
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

/* How willingly a thread in this state is held; 0: never. One asleep stops soonest. */
static int rank_state(char state)
{
    switch (state) {
    case 'S': case 'T': return 3;
    case 'R': return 2;
    case 't': return 1; /* traced already: the seize will say so */
    default: return 0;  /* Z and X are dead, D does not stop, I is the kernel's own */
    }
}

/* Of the threads whose own descriptor table holds the socket, the one to hold. */
static int choose_thread(struct target *target, enum sockalive_stage *stage)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/task", target->pid);
    DIR *tasks = opendir(path);
    if (!tasks) {
        *stage = SOCKALIVE_STAGE_CHOOSE_THREAD;
        return errno == ENOENT ? -ESRCH : -errno;
    }
    int best = 0, error = -ESRCH;
    const struct dirent *entry;
    for (int seen = 0; seen < MAX_THREADS && best < 3 && (entry = readdir(tasks)); seen++) {
        pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (tid <= 0)
            continue;
        char state = thread_state(target->pid, tid);
        int rank = rank_state(state);
        if (rank == 0 && state == 'D' && error == -ESRCH)
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
    *stage = best ? SOCKALIVE_STAGE_NONE
                  : error == -ESTALE ? SOCKALIVE_STAGE_DESCRIPTOR : SOCKALIVE_STAGE_CHOOSE_THREAD;
    return best ? 0 : error;
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
 * A stack is the main thread's, or what has a guard page right below it. Elsewhere
 * (a goroutine's or a coroutine's stack, carved out of a heap) the memory below the
 * stack pointer may be another thread's already.
 */
static int read_mappings(struct target *target, struct span *code, size_t *code_count)
{
    char path[32], *line = NULL;
    size_t size = 0;
    uint64_t guard_end = 0;
    struct mapping mapping;
    snprintf(path, sizeof path, "/proc/%d/maps", target->pid);
    FILE *maps = fopen(path, "re");
    if (!maps)
        return -errno;
    /* The kernel writes a newline in a path as \012, so a line is a mapping. */
    for (int seen = 0; seen < MAX_MAPPINGS && getline(&line, &size, maps) > 0; seen++) {
        if (!parse_mapping(line, &mapping))
            continue;
        bool fixed = mapping.file || strcmp(mapping.path, "[vdso]\n") == 0;
        bool stack = strcmp(mapping.path, "[stack]\n") == 0 || (!mapping.file && guard_end == mapping.span.start);
        if (strcmp(mapping.rights, "r-xp") == 0 && fixed)
            code[(*code_count)++ % TARGET_SPANS] = mapping.span;
        if (strncmp(mapping.rights, "rw-p", 4) == 0 && stack)
            target->stacks[target->stack_count++ % TARGET_SPANS] = mapping.span;
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
        ssize_t got = process_vm_readv(target->pid, &here, 1, &there, 1, 0);
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

static int find_code(struct target *target)
{
    struct span *code = malloc(TARGET_SPANS * sizeof *code);
    uint8_t *chunk = malloc(CHUNK);
    uint64_t budget = MAX_CODE_BYTES;
    size_t count = 0;
    int error = code && chunk ? read_mappings(target, code, &count) : -ENOMEM;
    /* From the top: the vDSO, the loader and libc lie there, and are smaller than the program. */
    size_t oldest = count > TARGET_SPANS ? count - TARGET_SPANS : 0;
    while (error == 0 && count > oldest && !search(target, &code[--count % TARGET_SPANS], chunk, &budget))
        ;
    free(code);
    free(chunk);
    return error ? error : target->code.call ? 0 : -ENOEXEC;
}

int target_inspect(struct target *target, enum sockalive_stage *stage)
{
    int error = choose_thread(target, stage);
    if (error)
        return error;
    error = find_code(target);
    if (error)
        *stage = error == -ENOENT || error == -ESRCH ? SOCKALIVE_STAGE_GONE : SOCKALIVE_STAGE_PREPARE;
    return error == -ENOENT ? -ESRCH : error;
}
#endif
