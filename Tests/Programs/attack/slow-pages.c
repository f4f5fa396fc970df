/* A file system whose pages are slow while its user is held: FUSE, in its own mount namespace. */
#define _GNU_SOURCE
#include "slow-pages.h"

#include <errno.h>
#include <linux/fuse.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>

static int device;
static struct shared *shared;

static void answer(const struct fuse_in_header *request, int error, const void *bytes, size_t size)
{
    static char reply[sizeof(struct fuse_out_header) + AREA_SIZE];
    struct fuse_out_header header = {(uint32_t)(sizeof header + size), -error, request->unique};
    memcpy(reply, &header, sizeof header);
    if (size > 0)
        memcpy(reply + sizeof header, bytes, size);
    if (write(device, reply, sizeof header + size) < 0 && errno == ENODEV)
        _exit(0);
}

/* With inode number 0, /proc/PID/maps shows it like memory without a file. */
static struct fuse_attr attributes(uint64_t node)
{
    return (struct fuse_attr){.ino = node == FUSE_ROOT_ID || node > WITH_INODE ? node : 0,
                              .size = node == FUSE_ROOT_ID ? 0 : AREA_SIZE,
                              .mode = node == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0755,
                              .nlink = 1};
}

static bool is_traced(int pid)
{
    char path[64], text[2048] = "";
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
        text[0] = '\0';
    close(fd);
    const char *line = strstr(text, "TracerPid:\t");
    return line && line[11] != '0';
}

static void send_page(const struct fuse_in_header *request, const struct fuse_read_in *read_in)
{
    static char file[AREA_SIZE];
    /* All gadgets of an injection. */
    memset(file, 0x90, 4096);
    memcpy(file + 256, "\x0f\x05\xc3", 3);
    memcpy(file + 512, "\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05", 9);
    if (shared->target && is_traced(shared->target)) {
        shared->is_reading = 1;
        for (int i = 0; i < 300 && !shared->done; i++)
            usleep(1000);
        usleep(1000);
    }
    size_t start = read_in->offset < AREA_SIZE ? read_in->offset : AREA_SIZE;
    size_t size = read_in->size < AREA_SIZE - start ? read_in->size : AREA_SIZE - start;
    answer(request, 0, file + start, size);
}

static void serve(char *bytes)
{
    const struct fuse_in_header *request = (void *)bytes;
    switch (request->opcode) {
    case FUSE_INIT: {
        struct fuse_init_out out = {.major = 7, .minor = 31, .max_write = 4096, .time_gran = 1};
        answer(request, 0, &out, sizeof out);
        break;
    }
    case FUSE_LOOKUP: {
        uint64_t node = (uint64_t)atoi(bytes + sizeof *request) + 2;
        struct fuse_entry_out out = {.nodeid = node, .attr = attributes(node)};
        answer(request, 0, &out, sizeof out);
        break;
    }
    case FUSE_GETATTR: {
        struct fuse_attr_out out = {.attr = attributes(request->nodeid)};
        answer(request, 0, &out, sizeof out);
        break;
    }
    case FUSE_OPEN: {
        struct fuse_open_out out = {.fh = 0};
        answer(request, 0, &out, sizeof out);
        break;
    }
    case FUSE_READ: send_page(request, (void *)(bytes + sizeof *request)); break;
    case FUSE_RELEASE:
    case FUSE_FLUSH: answer(request, 0, NULL, 0); break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT: break;
    default: answer(request, ENOSYS, NULL, 0);
    }
}

int serve_slow_pages(const char *folder, struct shared *memory)
{
    static char bytes[65536 + 4096];
    char options[128];
    shared = memory;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -1;
    device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", device);
    if (device < 0 || mount("slow", folder, "fuse", MS_NODEV, options) < 0)
        return -1;
    pid_t parent = getpid(), server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(0);
        while (read(device, bytes, sizeof bytes) >= 0 || errno == EINTR || errno == ENOENT)
            serve(bytes);
        _exit(0);
    }
    close(device);
    return server;
}
