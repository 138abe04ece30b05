// Preloaded into git: counts the calls with which it changes files, over all of its processes, and lets the nth fail.
// FAULTS_COUNT: a file with one byte for each call so far. FAULTS_NTH: which one. FAULTS_ERRNO: how; 0 is the end of git.

#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))

static int strikes(void) {
    const char * count = getenv("FAULTS_COUNT");
    if (!count) {
        return 0;
    }
    // by system calls: the functions are ours
    const int fd = syscall(SYS_openat, AT_FDCWD, count, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    syscall(SYS_write, fd, "x", 1);
    const long nth = syscall(SYS_lseek, fd, 0, SEEK_CUR);
    syscall(SYS_close, fd);
    if (nth != atol(getenv("FAULTS_NTH"))) {
        return 0;
    }
    errno = atoi(getenv("FAULTS_ERRNO"));
    if (!errno) {
        kill(getpid(), SIGKILL);
    }
    return 1;
}

static int is_file(int fd) {
    struct stat found;
    return fstat(fd, &found) == 0 && S_ISREG(found.st_mode);
}

#define OPEN(name)                                                           \
    int name(const char * path, int flags, ...) {                            \
        va_list more;                                                        \
        va_start(more, flags);                                               \
        const int mode = va_arg(more, int);                                  \
        va_end(more);                                                        \
        if (flags & (O_WRONLY | O_RDWR | O_CREAT) && strikes()) return -1;   \
        return REAL(name)(path, flags, mode);                                \
    }

#define ON_PATH(name, ...)                     \
    {                                          \
        if (strikes()) return -1;              \
        return REAL(name)(__VA_ARGS__);        \
    }

#define ON_FILE(name, fd, ...)                     \
    {                                              \
        if (is_file(fd) && strikes()) return -1;   \
        return REAL(name)(fd, ##__VA_ARGS__);      \
    }

OPEN(open)
OPEN(open64)

int rename(const char * from, const char * to) ON_PATH(rename, from, to)
int link(const char * from, const char * to) ON_PATH(link, from, to)
int unlink(const char * path) ON_PATH(unlink, path)
int mkdir(const char * path, mode_t mode) ON_PATH(mkdir, path, mode)
int rmdir(const char * path) ON_PATH(rmdir, path)
int chmod(const char * path, mode_t mode) ON_PATH(chmod, path, mode)
int fsync(int fd) ON_FILE(fsync, fd)
ssize_t write(int fd, const void * data, size_t size) ON_FILE(write, fd, data, size)
ssize_t pwrite(int fd, const void * data, size_t size, off_t at) ON_FILE(pwrite, fd, data, size, at)
