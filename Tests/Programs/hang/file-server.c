/* The server: it reads requests from /dev/fuse (linux/fuse.h) and answers the few that the scenes need. */
#include "file-server.h"

#include "sessions.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>

enum { LOG_NODE = FUSE_ROOT_ID + 1, PROGRAM_NODE, PAGES_NODE };

static int device;
static const char *image;
static size_t image_size;

static struct {
    atomic_int is_mounted, is_dead, unanswered;
} *shared;

static void answer(const struct fuse_in_header *request, int error, const void *bytes, size_t size)
{
    static char reply[sizeof(struct fuse_out_header) + (1 << 20)];
    struct fuse_out_header header = {(uint32_t)(sizeof header + size), -error, request->unique};

    memcpy(reply, &header, sizeof header);
    if (size > 0)
        memcpy(reply + sizeof header, bytes, size);
    /* ENOENT: the request was interrupted. */
    if (write(device, reply, sizeof header + size) < 0 && errno == ENODEV)
        _exit(0);
}

static struct fuse_attr attributes(uint64_t node)
{
    struct fuse_attr attributes = {.ino = node, .nlink = 1, .mode = S_IFREG | 0644, .blksize = 4096};

    if (node == FUSE_ROOT_ID)
        attributes.mode = S_IFDIR | 0755;
    if (node == PROGRAM_NODE)
        attributes.mode = S_IFREG | 0755, attributes.size = image_size;
    if (node == PAGES_NODE)
        attributes.size = PAGES_SIZE;
    return attributes;
}

static void look_up(const struct fuse_in_header *request, const char *name)
{
    static const char *const names[] = {LOG_FILE, PROGRAM_FILE, PAGES_FILE};

    for (uint64_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) == 0) {
            struct fuse_entry_out out = {.nodeid = LOG_NODE + i, .attr = attributes(LOG_NODE + i)};
            answer(request, 0, &out, sizeof out);
            return;
        }
    }
    answer(request, ENOENT, NULL, 0);
}

static void send_pages(const struct fuse_in_header *request, const struct fuse_read_in *in)
{
    static char pages[1 << 20];
    size_t size = request->nodeid == PROGRAM_NODE ? image_size : PAGES_SIZE;
    size_t start = in->offset < size ? in->offset : size;
    size_t count = in->size < size - start ? in->size : size - start;

    if (request->nodeid == PROGRAM_NODE) {
        answer(request, 0, image + start, count);
        return;
    }
    memset(pages, 0x90, count);
    answer(request, 0, pages, count);
}

static void serve(const char *bytes)
{
    const struct fuse_in_header *request = (const void *)bytes;
    const void *argument = bytes + sizeof *request;

    /* These have no answer. */
    if (request->opcode == FUSE_FORGET || request->opcode == FUSE_BATCH_FORGET || request->opcode == FUSE_INTERRUPT)
        return;
    if (shared->is_dead) {
        shared->unanswered++;
        return;
    }
    switch (request->opcode) {
    case FUSE_INIT: {
        struct fuse_init_out out = {.major = 7, .minor = 31, .max_readahead = 1 << 17, .max_write = 4096};
        out.time_gran = 1;
        answer(request, 0, &out, sizeof out);
        break;
    }
    case FUSE_LOOKUP: look_up(request, argument); break;
    case FUSE_GETATTR:
    case FUSE_SETATTR: {
        struct fuse_attr_out out = {.attr = attributes(request->nodeid)};
        answer(request, 0, &out, sizeof out);
        break;
    }
    case FUSE_OPEN:
    case FUSE_OPENDIR: {
        /* The pages of a program stay valid when it is opened again. */
        struct fuse_open_out out = {.open_flags = FOPEN_KEEP_CACHE};
        answer(request, 0, &out, sizeof out);
        break;
    }
    case FUSE_READ: send_pages(request, argument); break;
    case FUSE_WRITE: {
        struct fuse_write_out out = {.size = ((const struct fuse_write_in *)argument)->size};
        answer(request, 0, &out, sizeof out);
        break;
    }
    case FUSE_FLUSH:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR: answer(request, 0, NULL, 0); break;
    default: answer(request, ENOSYS, NULL, 0);
    }
}

static void mount_here(const char *folder, bool has_namespace)
{
    char options[128];

    if (has_namespace && (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0))
        fail("unshare");
    device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", device);
    if (device < 0 || mount("far", folder, "fuse", MS_NODEV, options) < 0)
        fail("mount");
    shared->is_mounted = 1;
}

static void read_program(const char *program)
{
    struct stat status;
    int file = open(program, O_RDONLY | O_CLOEXEC);

    if (file < 0 || fstat(file, &status) < 0)
        fail("open");
    image_size = (size_t)status.st_size;
    image = mmap(NULL, image_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (image == MAP_FAILED)
        fail("mmap");
    close(file);
}

pid_t start_file_server(const char *folder, const char *program, bool has_namespace)
{
    static _Alignas(8) char bytes[1 << 16];
    pid_t parent = getpid(), server;

    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || (server = fork()) < 0)
        fail("fork");
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(0);
        read_program(program);
        mount_here(folder, has_namespace);
        while (read(device, bytes, sizeof bytes) >= 0 || errno == EINTR || errno == ENOENT)
            serve(bytes);
        _exit(0);
    }
    while (!shared->is_mounted)
        usleep(1000);
    return server;
}

void let_file_server_die(void)
{
    shared->is_dead = 1;
}

int unanswered_requests(void)
{
    return shared->unanswered;
}
