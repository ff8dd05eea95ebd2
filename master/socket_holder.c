#include "master/socket_holder.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATE_LISTEN 0x0A /* TCP_LISTEN in proc(5), /proc/net/tcp */
#define PATH_SIZE    64
#define LINE_SIZE    512

static void close_file(FILE **file)
{
    if (*file != NULL)
        (void)fclose(*file);
}

static void close_directory(DIR **directory)
{
    if (*directory != NULL)
        (void)closedir(*directory);
}

/* Fields: number, local address:port, remote, state, queues, timer, retransmits, uid, timeout,
 * inode. Whether the addresses overlap is not asked: two that listen on one port are rare, and who
 * reads the message can tell. */
static uint64_t read_tcp_line(const char *line, uint16_t port)
{
    unsigned int local_port = 0;
    unsigned int state = 0;
    uint64_t inode = 0;
    /* NOLINTNEXTLINE(cert-err34-c): the kernel wrote these numbers */
    int fields = sscanf(line,
        " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*x:%*x %*x:%*x %*x %*u %*u %" SCNu64,
        &local_port, &state, &inode);
    return fields == 3 && state == STATE_LISTEN && local_port == port ? inode : 0;
}

/* Fields: number, references, protocol, flags, type, state, inode, path. */
static uint64_t read_unix_line(const char *line, const char *path)
{
    uint64_t inode = 0;
    int path_start = 0;
    /* NOLINTNEXTLINE(cert-err34-c): the kernel wrote these numbers */
    int fields = sscanf(line, "%*x: %*x %*x %*x %*x %*x %" SCNu64 " %n", &inode, &path_start);
    size_t length = strlen(path);
    bool is_path = fields == 1 && path_start > 0 && strncmp(line + path_start, path, length) == 0;
    return is_path && line[(size_t)path_start + length] == '\n' ? inode : 0;
}

/* 0: nobody listens there. */
static uint64_t find_inode(const char *table, const struct listener_address *address)
{
    FILE *file CLEANUP(close_file) = fopen(table, "re");
    char line[LINE_SIZE];
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        uint64_t inode = address->is_unix ? read_unix_line(line, address->path)
                                          : read_tcp_line(line, address->port);
        if (inode != 0)
            return inode;
    }
    return 0;
}

static bool holds(const char *pid, const char *socket_name)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
    DIR *descriptors CLEANUP(close_directory) = opendir(path);
    if (descriptors == NULL)
        return false;
    for (const struct dirent *entry = readdir(descriptors); entry != NULL;
         entry = readdir(descriptors)) {
        char target[PATH_SIZE];
        ssize_t length = readlinkat(dirfd(descriptors), entry->d_name, target, sizeof(target) - 1);
        if (length <= 0)
            continue;
        target[length] = '\0';
        if (strcmp(target, socket_name) == 0)
            return true;
    }
    return false;
}

static void read_program(struct socket_holder *holder)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "/proc/%d/comm", (int)holder->pid);
    FILE *file CLEANUP(close_file) = fopen(path, "re");
    if (file == NULL || fgets(holder->program, sizeof(holder->program), file) == NULL)
        (void)snprintf(holder->program, sizeof(holder->program), "?");
    holder->program[strcspn(holder->program, "\n")] = '\0';
}

static int find_process(uint64_t inode, struct socket_holder *ret_holder)
{
    char socket_name[PATH_SIZE];
    (void)snprintf(socket_name, sizeof(socket_name), "socket:[%" PRIu64 "]", inode);
    DIR *processes CLEANUP(close_directory) = opendir("/proc");
    if (processes == NULL)
        return -errno;
    for (const struct dirent *entry = readdir(processes); entry != NULL;
         entry = readdir(processes)) {
        long pid = strtol(entry->d_name, NULL, 10);
        if (pid <= 0 || !holds(entry->d_name, socket_name))
            continue;
        struct socket_holder holder = {.pid = (pid_t)pid};
        read_program(&holder);
        *ret_holder = holder;
        return 0;
    }
    return -ENOENT;
}

int socket_holder_find(const struct listener_address *address, struct socket_holder *ret_holder)
{
    static const char *const tcp_tables[] = {"/proc/net/tcp", "/proc/net/tcp6"};
    static const char *const unix_tables[] = {"/proc/net/unix"};
    const char *const *tables = address->is_unix ? unix_tables : tcp_tables;
    size_t count = address->is_unix ? ARRAY_LENGTH(unix_tables) : ARRAY_LENGTH(tcp_tables);
    for (size_t i = 0; i < count; i++) {
        uint64_t inode = find_inode(tables[i], address);
        if (inode != 0 && find_process(inode, ret_holder) == 0)
            return 0;
    }
    return -ENOENT;
}
