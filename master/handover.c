#include "master/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file_descriptor.h"

/*   +-------------------+--------------+--------------+---------------------+
 *   | magic, 8 bytes    | format, u32  | size, u32    | State, packed       |
 *   +-------------------+--------------+--------------+---------------------+
 */
struct head {
    uint64_t magic;
    uint32_t format;
    uint32_t size; /* of the State */
};

#define MAGIC           UINT64_C(0x7573657264686f31) /* "userdho1" */
#define STATE_BYTES_MAX ((size_t)1024 * 1024)
#define SEALS           (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

struct handover *handover_new(void)
{
    struct handover *handover = calloc(1, sizeof(*handover));
    if (handover == NULL)
        return NULL;
    userd__handover__state__init(&handover->state);
    handover->state.run_directory_fd = -1;
    handover->state.pid_file_fd = -1;
    handover->state.scoreboard_fd = -1;
    handover->state.outbox_wake_fd = -1;
    handover->state.admin_fd = -1;
    for (size_t i = 0; i < SETTINGS_MAX_LISTENERS; i++) {
        userd__handover__listener__init(&handover->listeners[i]);
        handover->listener_pointers[i] = &handover->listeners[i];
    }
    for (size_t i = 0; i < SCOREBOARD_SLOTS; i++) {
        userd__handover__child__init(&handover->children[i]);
        userd__handover__program__init(&handover->programs[i]);
        userd__handover__post__init(&handover->posts[i]);
        handover->children[i].program = &handover->programs[i];
        handover->child_pointers[i] = &handover->children[i];
        handover->post_pointers[i] = &handover->posts[i];
    }
    for (size_t i = 0; i < CHILD_ROLE_COUNT; i++) {
        userd__handover__role__init(&handover->roles[i]);
        handover->role_pointers[i] = &handover->roles[i];
    }
    for (size_t i = 0; i < ADMIN_SOCKET_CLIENTS; i++) {
        userd__handover__client__init(&handover->clients[i]);
        handover->client_pointers[i] = &handover->clients[i];
    }
    handover->state.listeners = handover->listener_pointers;
    handover->state.children = handover->child_pointers;
    handover->state.posts = handover->post_pointers;
    handover->state.roles = handover->role_pointers;
    handover->state.clients = handover->client_pointers;
    handover->state.passed = handover->passed;
    return handover;
}

void handover_free(struct handover *handover)
{
    if (handover == NULL)
        return;
    for (size_t i = 0; i < handover->state.n_passed; i++)
        free(handover->passed[i]);
    free(handover);
}

Userd__Handover__Passed *handover_add_passed(struct handover *handover)
{
    size_t count = handover->state.n_passed;
    Userd__Handover__Passed *passed = count < HANDOVER_PASSED_MAX ? malloc(sizeof(*passed)) : NULL;
    if (passed == NULL)
        return NULL;
    userd__handover__passed__init(passed);
    handover->passed[count] = passed;
    handover->state.n_passed = count + 1;
    return passed;
}

int handover_write(const Userd__Handover__State *state, int *ret_fd)
{
    size_t size = userd__handover__state__get_packed_size(state);
    if (size > STATE_BYTES_MAX)
        return -EMSGSIZE;
    int fd CLEANUP(fd_close) = memfd_create("userd-handover", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)(sizeof(struct head) + size)) < 0)
        return -errno;
    uint8_t *bytes =
        mmap(NULL, sizeof(struct head) + size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (bytes == MAP_FAILED)
        return -errno;
    const struct head head = {.magic = MAGIC, .format = HANDOVER_FORMAT, .size = (uint32_t)size};
    memcpy(bytes, &head, sizeof(head));
    (void)userd__handover__state__pack(state, bytes + sizeof(head));
    (void)munmap(bytes, sizeof(head) + size); /* a writable map would forbid the seal */
    if (fcntl(fd, F_ADD_SEALS, SEALS) < 0)
        return -errno;
    *ret_fd = fd_take(&fd);
    return 0;
}

int handover_read(int fd, Userd__Handover__State **ret_state, uint32_t *ret_format)
{
    struct head head = {0};
    ssize_t length = pread(fd, &head, sizeof(head), 0);
    if (length < 0)
        return -errno;
    if (length != (ssize_t)sizeof(head) || head.magic != MAGIC)
        return -EPROTO;
    *ret_format = head.format;
    if (head.format != HANDOVER_FORMAT)
        return -EPROTONOSUPPORT;
    if (head.size > STATE_BYTES_MAX)
        return -EPROTO;
    uint8_t *bytes = malloc((size_t)head.size + 1);
    if (bytes == NULL)
        return -ENOMEM;
    length = pread(fd, bytes, head.size, sizeof(head));
    Userd__Handover__State *state = NULL;
    if (length == (ssize_t)head.size)
        state = userd__handover__state__unpack(NULL, head.size, bytes);
    explicit_bzero(bytes, head.size); /* it holds the settings' secrets */
    free(bytes);
    if (state == NULL || state->settings == NULL) {
        if (state != NULL)
            userd__handover__state__free_unpacked(state, NULL);
        return -EPROTO;
    }
    *ret_state = state;
    return 0;
}

int handover_take_fd(void)
{
    const char *text = getenv(HANDOVER_VARIABLE);
    if (text == NULL)
        return -1;
    char *end = NULL;
    errno = 0;
    long number = strtol(text, &end, 10);
    bool is_number = errno == 0 && end != text && *end == '\0' && number > STDERR_FILENO &&
                     fcntl((int)number, F_GETFD) >= 0;
    (void)unsetenv(HANDOVER_VARIABLE);
    if (!is_number)
        return -1;
    (void)fcntl((int)number, F_SETFD, FD_CLOEXEC);
    return (int)number;
}

static int set_one(int fd, bool is_inherited)
{
    if (fd < 0)
        return 0;
    return fcntl(fd, F_SETFD, is_inherited ? 0 : FD_CLOEXEC) < 0 ? -errno : 0;
}

int handover_set_inherited(const Userd__Handover__State *state, bool is_inherited)
{
    const int own[] = {state->run_directory_fd, state->pid_file_fd, state->scoreboard_fd,
        state->outbox_wake_fd, state->admin_fd};
    int result = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(own) && result == 0; i++)
        result = set_one(own[i], is_inherited);
    for (size_t i = 0; i < state->n_listeners && result == 0; i++)
        result = set_one(state->listeners[i]->fd, is_inherited);
    for (size_t i = 0; i < state->n_children && result == 0; i++)
        result = set_one(state->children[i]->control_fd, is_inherited);
    for (size_t i = 0; i < state->n_clients && result == 0; i++)
        result = set_one(state->clients[i]->fd, is_inherited);
    for (size_t i = 0; i < state->n_passed && result == 0; i++)
        result = set_one(state->passed[i]->fd, is_inherited);
    return result;
}
