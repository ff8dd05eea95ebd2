#include "worker/rpc/rpc_open_requests.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_START 8

void rpc_open_requests_cleanup(struct rpc_open_requests *requests)
{
    free(requests->places);
    *requests = (struct rpc_open_requests){0};
}

/* Closes the gaps. */
static void compact(struct rpc_open_requests *requests)
{
    uint32_t target = 0;
    for (uint32_t i = requests->first; i < requests->end; i++) {
        if (!requests->places[i].is_over)
            requests->places[target++] = requests->places[i];
    }
    requests->first = 0;
    requests->end = target;
}

/* Room for one more at the end. It is half gaps before it is compacted: little work for each. */
static int make_room(struct rpc_open_requests *requests)
{
    if (requests->end < requests->capacity)
        return 0;
    if (requests->count < requests->capacity / 2) {
        compact(requests);
        return 0;
    }
    uint32_t capacity = requests->capacity == 0 ? CAPACITY_START : requests->capacity * 2;
    struct rpc_open_request *places =
        reallocarray(requests->places, capacity, sizeof(*requests->places));
    if (places == NULL)
        return -ENOMEM;
    requests->places = places;
    requests->capacity = capacity;
    return 0;
}

int rpc_open_requests_begin(
    struct rpc_open_requests *requests, uint32_t stream, uint32_t limit, uint32_t now_ms)
{
    if (stream <= requests->last_stream)
        return 0;
    requests->last_stream = stream;
    if (requests->count >= limit)
        return -ENOSPC;
    int error = make_room(requests);
    if (error < 0)
        return error;
    requests->places[requests->end++] =
        (struct rpc_open_request){.stream = stream, .begun_ms = now_ms};
    requests->count++;
    return 0;
}

/* NULL: it is not here. */
static struct rpc_open_request *find(const struct rpc_open_requests *requests, uint32_t stream)
{
    uint32_t low = requests->first;
    uint32_t high = requests->end;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (requests->places[middle].stream < stream)
            low = middle + 1;
        else
            high = middle;
    }
    bool is_here = low < requests->end && requests->places[low].stream == stream &&
                   !requests->places[low].is_over;
    return is_here ? &requests->places[low] : NULL;
}

void rpc_open_requests_add(struct rpc_open_requests *requests, uint32_t stream, uint32_t bytes)
{
    struct rpc_open_request *place = requests->count == 0 ? NULL : find(requests, stream);
    if (place == NULL || bytes > UINT32_MAX - place->bytes)
        return;
    place->bytes += bytes;
    requests->bytes += bytes;
}

void rpc_open_requests_end(struct rpc_open_requests *requests, uint32_t stream)
{
    struct rpc_open_request *place = requests->count == 0 ? NULL : find(requests, stream);
    if (place == NULL)
        return;
    place->is_over = true;
    requests->bytes -= place->bytes;
    requests->count--;
    while (requests->end > requests->first && requests->places[requests->end - 1].is_over)
        requests->end--;
    while (requests->first < requests->end && requests->places[requests->first].is_over)
        requests->first++;
    if (requests->first == requests->end) {
        requests->first = 0;
        requests->end = 0;
    }
}

uint32_t rpc_open_requests_oldest_ms(const struct rpc_open_requests *requests)
{
    assert(requests->count > 0);
    return requests->places[requests->first].begun_ms;
}
