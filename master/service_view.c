#include "master/service_view.h"

#include <errno.h>

#include "common/file_descriptor.h"
#include "master/admin_client.h"

static int fill(const char *run_dir, unsigned int timeout_ms, struct service_view *view)
{
    int result = admin_client_open(run_dir, &view->client);
    if (result < 0)
        return result;
    int fd CLEANUP(fd_close) = -1;
    result = admin_client_ask(
        view->client, USERD__IPC__ADMIN_REQUEST__KIND__STATUS, timeout_ms, &view->master, &fd);
    if (result < 0)
        return result;
    if (!view->master->is_done)
        return -EACCES;
    uint32_t version = 0;
    return scoreboard_open_readonly(fd, &view->scoreboard, &version);
}

int service_view_open(const char *run_dir, unsigned int timeout_ms, struct service_view *ret_view)
{
    struct service_view view = {0};
    int result = fill(run_dir, timeout_ms, &view);
    if (result < 0)
        service_view_close(&view);
    else
        *ret_view = view;
    return result;
}

void service_view_close(struct service_view *view)
{
    scoreboard_close_readonly(view->scoreboard);
    (void)admin_client_close(view->client);
    *view = (struct service_view){0};
}
