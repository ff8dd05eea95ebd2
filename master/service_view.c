#include "master/service_view.h"

#include <errno.h>

#include "common/file_descriptor.h"
#include "master/admin_client.h"

int service_view_open(const char *run_dir, unsigned int timeout_ms, struct service_view *ret_view)
{
    struct service_view view CLEANUP(service_view_close) = {0};
    int result = admin_client_open(run_dir, &view.client);
    if (result < 0)
        return result;
    int fd CLEANUP(fd_close) = -1;
    result = admin_client_ask(
        view.client, USERD__IPC__ADMIN_REQUEST__KIND__STATUS, timeout_ms, &view.master, &fd);
    if (result < 0)
        return result;
    if (!view.master->is_done)
        return -EACCES;
    uint32_t version = 0;
    result = scoreboard_open_readonly(fd, &view.scoreboard, &version);
    if (result < 0)
        return result;
    *ret_view = view;
    view = (struct service_view){0};
    return 0;
}

void service_view_close(struct service_view *view)
{
    scoreboard_close_readonly(view->scoreboard);
    (void)admin_client_close(view->client);
    *view = (struct service_view){0};
}
