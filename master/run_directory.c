#include "master/run_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/log.h"

#define DIRECTORY_MODE     0755
#define FILE_MODE          0644
#define PID_FILE           "userd.pid"
#define LISTENERS_FILE     "listeners"
#define LISTENERS_NEW_FILE "listeners.new"
#define PID_TEXT_MAX       16

static int write_pid(int fd)
{
    char text[PID_TEXT_MAX];
    int length = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (ftruncate(fd, 0) < 0)
        return -errno;
    return fd_write_all(fd, text, (size_t)length);
}

/* 0 when the holder has not written its pid yet. */
static long read_pid(int fd)
{
    char text[PID_TEXT_MAX] = "";
    if (pread(fd, text, sizeof(text) - 1, 0) <= 0)
        return 0;
    return strtol(text, NULL, 10);
}

/* The lock belongs to the open file, not to the process: it is free the moment the master is gone,
 * however it went, and the file itself is never removed, for its name must keep meaning one file to
 * all who lock it. */
static int lock_pid_file(const char *path, int directory_fd, int *ret_fd)
{
    int fd CLEANUP(fd_close) =
        openat(directory_fd, PID_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    if (fd < 0) {
        int result = -errno;
        log_error("pid file failed path=%s/" PID_FILE " error=\"%s\"", path, strerror(-result));
        return result;
    }
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
        bool is_held = errno == EAGAIN || errno == EACCES;
        int result = is_held ? -EBUSY : -errno;
        if (is_held)
            log_error("already running run_dir=%s pid=%ld", path, read_pid(fd));
        else
            log_error("pid file lock failed run_dir=%s error=\"%s\"", path, strerror(-result));
        return result;
    }
    int result = write_pid(fd);
    if (result < 0) {
        log_error("pid file write failed run_dir=%s error=\"%s\"", path, strerror(-result));
        return result;
    }
    *ret_fd = fd_take(&fd);
    return 0;
}

int run_directory_open(const char *path, struct run_directory *ret_directory)
{
    if (mkdir(path, DIRECTORY_MODE) < 0 && errno != EEXIST) {
        int result = -errno;
        log_error("run_dir cannot be made path=%s error=\"%s\"", path, strerror(-result));
        return result;
    }
    int fd CLEANUP(fd_close) = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        int result = -errno;
        log_error("run_dir cannot be opened path=%s error=\"%s\"", path, strerror(-result));
        return result;
    }
    int pid_fd = -1;
    int result = lock_pid_file(path, fd, &pid_fd);
    if (result < 0)
        return result;
    *ret_directory = (struct run_directory){.fd = fd_take(&fd), .pid_fd = pid_fd};
    return 0;
}

int run_directory_write_listeners(
    const struct run_directory *directory, const struct listener *listeners, size_t count)
{
    int fd CLEANUP(fd_close) = openat(directory->fd, LISTENERS_NEW_FILE,
        O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    if (fd < 0)
        return -errno;
    for (size_t i = 0; i < count; i++) {
        const char *parts[] = {listeners[i].name, " ", listeners[i].bound_text, "\n"};
        for (size_t j = 0; j < ARRAY_LENGTH(parts); j++) {
            int result = fd_write_all(fd, parts[j], strlen(parts[j]));
            if (result < 0)
                return result;
        }
    }
    if (renameat(directory->fd, LISTENERS_NEW_FILE, directory->fd, LISTENERS_FILE) < 0)
        return -errno;
    return 0;
}

void run_directory_close(struct run_directory *directory)
{
    if (directory->fd >= 0)
        (void)unlinkat(directory->fd, LISTENERS_FILE, 0);
    if (directory->pid_fd >= 0 && ftruncate(directory->pid_fd, 0) < 0)
        log_warn("pid file not emptied error=\"%s\"", strerror(errno));
    fd_close(&directory->pid_fd);
    fd_close(&directory->fd);
}
