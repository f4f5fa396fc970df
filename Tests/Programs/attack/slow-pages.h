#ifndef SLOW_PAGES_H
#define SLOW_PAGES_H

#include "../common/attack.h"

/* Files with a number from here on have an inode number. */
#define WITH_INODE 1000000

/*
 * Mounts the file system on a folder, for this process and its children. It has a file of every number. While
 * `shared->target` is traced, a read sets `is_reading` and waits for `done`, or 300 ms. Returns the server's PID, or -1
 * if the mount is impossible.
 */
int serve_slow_pages(const char *folder, struct shared *shared);

#endif
