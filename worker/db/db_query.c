#include "worker/db/db_query.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <sys/epoll.h>

static void finish(struct db_query *query, bool is_broken)
{
    PGresult *result = query->result;
    query->result = NULL;
    query->io = sd_event_source_disable_unref(query->io);
    query->on_done(is_broken ? NULL : result, query->userdata);
    PQclear(result);
}

/* False: the session is broken. */
static bool read_results(struct db_query *query, bool *ret_is_done)
{
    *ret_is_done = false;
    if (!PQconsumeInput(query->session))
        return false;
    while (!PQisBusy(query->session)) {
        PGresult *result = PQgetResult(query->session);
        if (!result) {
            *ret_is_done = true;
            return PQstatus(query->session) != CONNECTION_BAD;
        }
        if (query->result)
            PQclear(result);
        else
            query->result = result;
    }
    return true;
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct db_query *query = userdata;
    (void)fd;
    (void)revents;
    bool is_done = false;
    int flushed = PQflush(query->session);
    bool is_broken = flushed < 0 || !read_results(query, &is_done);
    if (is_broken || is_done)
        finish(query, is_broken);
    else
        (void)sd_event_source_set_io_events(source, EPOLLIN | (flushed > 0 ? EPOLLOUT : 0U));
    return 0;
}

int db_query_start(
    struct db_query *query, const char *sql, const char *const *values, size_t value_count)
{
    assert(value_count <= DB_QUERY_MAX_VALUES && !query->io);
    if (PQsetnonblocking(query->session, 1) != 0 ||
        !PQsendQueryParams(query->session, sql, (int)value_count, NULL, values, NULL, NULL, 0))
        return -ENOTCONN;
    return sd_event_add_io(
        query->event, &query->io, PQsocket(query->session), EPOLLIN | EPOLLOUT, on_io, query);
}

void db_query_cancel(struct db_query *query)
{
    query->io = sd_event_source_disable_unref(query->io);
    PQclear(query->result);
    query->result = NULL;
}
