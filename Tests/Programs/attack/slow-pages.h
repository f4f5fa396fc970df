#ifndef SLOW_PAGES_H
#define SLOW_PAGES_H

#include "../common/attack.h"

/* Files of greater numbers have an inode number. */
#define WITH_INODE 1000000

/*
 * Mounts the file system on a folder, seen by this process and those that it starts, and gone with them; a file of
 * any number is in it. While `shared->target` is traced, a read sets `is_reading` and waits for `done`, or 300 ms.
 * Returns the server's number, -1 where that cannot be.
 */
int serve_slow_pages(const char *folder, struct shared *shared);

#endif
