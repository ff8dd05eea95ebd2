#include "master/metrics_server.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "master/service_view.h"
#include "master/status_metrics.h"

#define PATH                    "/metrics"
#define TEXT_FORMAT             "text/plain; version=0.0.4; charset=utf-8"
#define ANSWER_TIMEOUT_MS       2000
#define CONNECTION_TIMEOUT_S    10
#define CONNECTION_MEMORY_BYTES ((size_t)16 * 1024) /* a request's head is not longer */

struct metrics_server {
    struct MHD_Daemon *daemon; /* owned */
    const char *run_dir;
};

/* Takes `text`. */
static enum MHD_Result answer(struct MHD_Connection *connection, unsigned int status, char *text,
    size_t length, const char *type)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(length, text, MHD_RESPMEM_MUST_FREE);
    if (response == NULL) {
        free(text);
        return MHD_NO;
    }
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer_plainly(
    struct MHD_Connection *connection, unsigned int status, const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL)
        return MHD_NO;
    return answer(connection, status, copy, strlen(copy), "text/plain; charset=utf-8");
}

/* 200, or 503 where there is no service to ask. Negative errno: there is no text. */
static int write_metrics(const char *run_dir, FILE *stream)
{
    struct service_view view CLEANUP(service_view_close) = {0};
    int result = service_view_open(run_dir, ANSWER_TIMEOUT_MS, &view);
    if (result == -ENOMEM)
        return result;
    if (result < 0) {
        log_debug("service not asked run_dir=%s error=\"%s\"", run_dir, strerror(-result));
        status_metrics_print_absence(stream);
        return MHD_HTTP_SERVICE_UNAVAILABLE;
    }
    result = status_metrics_print(stream, view.master, view.scoreboard);
    return result < 0 ? result : MHD_HTTP_OK;
}

static enum MHD_Result answer_metrics(
    const struct metrics_server *server, struct MHD_Connection *connection)
{
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    if (stream == NULL)
        return MHD_NO;
    int status = write_metrics(server->run_dir, stream);
    if (fclose(stream) != 0 || status < 0) {
        free(text);
        return MHD_NO;
    }
    return answer(connection, (unsigned int)status, text, length, TEXT_FORMAT);
}

/* *state is ours for a request: NULL when its head has come, something else when all has. */
/* NOLINTNEXTLINE(readability-function-size): as the library calls it */
static enum MHD_Result on_request(void *userdata, struct MHD_Connection *connection,
    const char *url, const char *method, const char *version, const char *body, size_t *body_size,
    void **state)
{
    static int has_begun;
    (void)version;
    (void)body;
    if (*state == NULL) {
        *state = &has_begun;
        return MHD_YES;
    }
    if (*body_size > 0) {
        *body_size = 0; /* of no interest */
        return MHD_YES;
    }
    if (strcmp(url, PATH) != 0)
        return answer_plainly(
            connection, MHD_HTTP_NOT_FOUND, "not found: the numbers are at " PATH "\n");
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return answer_plainly(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "expected GET or HEAD\n");
    return answer_metrics(userdata, connection);
}

int metrics_server_start(int fd, const char *run_dir, struct metrics_server **ret_server)
{
    struct metrics_server *server = calloc(1, sizeof(*server));
    if (server == NULL)
        return -ENOMEM;
    server->run_dir = run_dir;
    server->daemon = MHD_start_daemon(MHD_USE_AUTO_INTERNAL_THREAD, 0, NULL, NULL, on_request,
        server, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned int)METRICS_SERVER_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned int)CONNECTION_TIMEOUT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        CONNECTION_MEMORY_BYTES, MHD_OPTION_END);
    if (server->daemon == NULL) {
        free(server);
        return -EIO;
    }
    *ret_server = server;
    return 0;
}

struct metrics_server *metrics_server_stop(struct metrics_server *server)
{
    if (server == NULL)
        return NULL;
    MHD_stop_daemon(server->daemon);
    free(server);
    return NULL;
}
