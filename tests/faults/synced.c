/* Preloaded into a server: writes down what a power cut cannot take back. One line per fsync that has succeeded,
 * "inode size", where size is the file's before the call began: what was written meanwhile may not be on the disk.
 * WEIR_SYNCED is the file for the lines; WEIR_SYNC_US makes the disk slower, so that more hangs in the air. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int lines = -1;
static useconds_t slow_us;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("WEIR_SYNCED"), *us = getenv("WEIR_SYNC_US");
    if (path) lines = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (us) slow_us = (useconds_t)atoi(us);
}

static int recorded(int fd, const char *name) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    struct stat before;
    int known = fstat(fd, &before) == 0 && S_ISREG(before.st_mode);
    if (known && slow_us) usleep(slow_us);
    int result = real(fd);
    if (result == 0 && known && lines >= 0)
        dprintf(lines, "%llu %lld\n", (unsigned long long)before.st_ino, (long long)before.st_size);
    return result;
}

int fdatasync(int fd) { return recorded(fd, "fdatasync"); }
int fsync(int fd) { return recorded(fd, "fsync"); }
