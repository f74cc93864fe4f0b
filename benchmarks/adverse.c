/* Preloaded by adverse.py: a disk from which at most SLOW_BYTES_PER_S are read, and a clock that jumps.

Reads of at least 4 kB from files in SLOW_FOLDER sleep as long as they would take on such a disk. Every JUMP_EVERY_S the time of day that programs ask for jumps
to another of the offsets below; the clock that counts since the start of the machine, and the times that the system
gives to files, do not. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const time_t OFFSETS_S[] = {0, 3600, -3600, 86400, -30 * 86400, 300};

static double number(const char *name) {
    const char *text = getenv(name);
    return text ? atof(text) : 0.0;
}

static int is_slow(int fd) {
    const char *folder = getenv("SLOW_FOLDER");
    char link[64], path[4096];
    ssize_t n;
    if (!folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path);
    return n >= (ssize_t)strlen(folder) && strncmp(path, folder, strlen(folder)) == 0;
}

static ssize_t slowly(int fd, ssize_t n) {
    double rate = number("SLOW_BYTES_PER_S");
    if (n >= 4096 && rate > 0 && is_slow(fd)) {
        double seconds = n / rate;
        struct timespec pause = {(time_t)seconds, (long)(1e9 * (seconds - (time_t)seconds))};
        nanosleep(&pause, NULL);
    }
    return n;
}

#define SLOW(name, declared, passed)                                       \
    ssize_t name declared {                                                \
        static ssize_t(*real) declared;                                    \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);              \
        return slowly(fd, real passed);                                    \
    }

SLOW(read, (int fd, void *buffer, size_t n), (fd, buffer, n))
SLOW(pread, (int fd, void *buffer, size_t n, off_t at), (fd, buffer, n, at))
SLOW(pread64, (int fd, void *buffer, size_t n, off64_t at), (fd, buffer, n, at))
SLOW(preadv, (int fd, const struct iovec *parts, int n, off_t at), (fd, parts, n, at))
SLOW(preadv64, (int fd, const struct iovec *parts, int n, off64_t at), (fd, parts, n, at))
SLOW(preadv64v2, (int fd, const struct iovec *parts, int n, off64_t at, int flags), (fd, parts, n, at, flags))

static time_t offset(void) {
    double every = number("JUMP_EVERY_S");
    struct timespec since_start;
    static int (*real)(clockid_t, struct timespec *);
    if (every <= 0) return 0;
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    real(CLOCK_MONOTONIC, &since_start);
    return OFFSETS_S[(long)(since_start.tv_sec / every) % (sizeof OFFSETS_S / sizeof *OFFSETS_S)];
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, now);
    if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += offset();
    return status;
}

int gettimeofday(struct timeval *now, void *zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "gettimeofday");
    int status = real(now, zone);
    if (status == 0) now->tv_sec += offset();
    return status;
}

time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
