/* A small gRPC client on the C core, for calls as raw bytes: what a peer may send is not only what
 * generated code makes. One gRPC library for each test's process; the first test_rpc_open()
 * initialises it. */
#ifndef USERD_TESTS_HARNESS_TEST_RPC_H
#define USERD_TESTS_HARNESS_TEST_RPC_H

#include <grpc/grpc.h>
#include <grpc/status.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/attributes.h"

struct test_rpc {
    grpc_channel *channel;   /* owned */
    const char *traceparent; /* static text that calls carry; NULL: none */
};

struct test_reply {
    grpc_status_code status;
    char message[256]; /* the status's */
    uint8_t *bytes;    /* owned: test_reply_cleanup() */
    size_t length;
    bool has_pushback; /* trailing metadata grpc-retry-pushback-ms was there */
};

struct test_call;

/* Opens a connection of its own to "127.0.0.1:PORT" when the first call is made. */
void test_rpc_open(struct test_rpc *rpc, const char *address, bool compresses);
void test_rpc_close(struct test_rpc *rpc);

/* Starts a unary call: `bytes` are sent as they are. */
struct test_call *test_rpc_start(
    struct test_rpc *rpc, const char *method, const void *bytes, size_t length, int64_t timeout_ms);
void test_rpc_cancel(struct test_call *call);
/* Waits for the end (which the call's own deadline bounds) and frees the call. */
void test_rpc_finish(struct test_call *call, struct test_reply *ret_reply);
/* True once the call has ended: test_rpc_finish() will not wait. */
bool test_rpc_has_ended(struct test_call *call);

/* start + finish with the harness's time limit. */
void test_rpc_call(struct test_rpc *rpc, const char *method, const void *bytes, size_t length,
    struct test_reply *ret_reply);
void test_rpc_call_message(struct test_rpc *rpc, const char *method,
    const ProtobufCMessage *request, struct test_reply *ret_reply);
/* Decodes an OK reply; fails the test otherwise. Free with protobuf_c_message_free_unpacked(). */
ProtobufCMessage *test_reply_decode(
    const struct test_reply *reply, const ProtobufCMessageDescriptor *type);
void test_reply_cleanup(struct test_reply *reply);

#endif
