/* An io_uring by system calls: liburing may be missing. A direct descriptor is an entry in the ring's own table. */
#include "agent.h"

#include <linux/io_uring.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* Linux 5.19. In older headers it is missing. */
#define OP_SOCKET 45

static struct {
    int fd;
    unsigned *tail, *mask, *array, *head, *ready_tail, *ready_mask;
    struct io_uring_sqe *entries;
    struct io_uring_cqe *results;
} ring;

static void *area(size_t size, off_t offset)
{
    void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, offset);
    if (address == MAP_FAILED)
        fail("mmap");
    return address;
}

void make_ring(void)
{
    struct io_uring_params parameters = {0};
    char *queue, *done;

    ring.fd = (int)syscall(SYS_io_uring_setup, 4, &parameters);
    if (ring.fd < 0)
        fail("io_uring_setup");
    queue = area(parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
    done = area(parameters.cq_off.cqes + parameters.cq_entries * sizeof *ring.results, IORING_OFF_CQ_RING);
    ring.entries = area(parameters.sq_entries * sizeof *ring.entries, IORING_OFF_SQES);
    ring.tail = (unsigned *)(queue + parameters.sq_off.tail);
    ring.mask = (unsigned *)(queue + parameters.sq_off.ring_mask);
    ring.array = (unsigned *)(queue + parameters.sq_off.array);
    ring.head = (unsigned *)(done + parameters.cq_off.head);
    ring.ready_tail = (unsigned *)(done + parameters.cq_off.tail);
    ring.ready_mask = (unsigned *)(done + parameters.cq_off.ring_mask);
    ring.results = (struct io_uring_cqe *)(done + parameters.cq_off.cqes);
}

/* Submits one entry and waits for its result. */
static int submit(const struct io_uring_sqe *entry)
{
    unsigned tail = *ring.tail, index = tail & *ring.mask, head = *ring.head;
    int result;

    ring.entries[index] = *entry;
    ring.array[index] = index;
    __atomic_store_n(ring.tail, tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
        fail("io_uring_enter");
    while (__atomic_load_n(ring.ready_tail, __ATOMIC_ACQUIRE) == head)
        usleep(100);
    result = ring.results[head & *ring.ready_mask].res;
    __atomic_store_n(ring.head, head + 1, __ATOMIC_RELEASE);
    return result;
}

void make_empty_table(void)
{
    int slots[] = {-1, -1, -1, -1};

    if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_FILES, slots, 4) < 0)
        fail("IORING_REGISTER_FILES");
}

int connect_by_ring(void)
{
    struct io_uring_sqe entry = {
        .opcode = OP_SOCKET, .fd = AF_INET, .off = SOCK_STREAM, .len = IPPROTO_TCP, .file_index = 1};

    make_ring();
    make_empty_table();
    errno = -submit(&entry);
    if (errno > 0)
        fail("IORING_OP_SOCKET");
    entry = (struct io_uring_sqe){
        .opcode = IORING_OP_CONNECT, .fd = 0, .addr = (uintptr_t)&peer_address, .off = sizeof peer_address,
        .flags = IOSQE_FIXED_FILE};
    errno = -submit(&entry);
    if (errno > 0)
        fail("IORING_OP_CONNECT");
    return 0;
}
