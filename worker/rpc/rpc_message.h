/* From what the C core received to a decoded message: joins slices, inflates within a bound, checks
 * what protobuf-c does not check. Knows nothing of calls. */
#ifndef USERD_WORKER_RPC_RPC_MESSAGE_H
#define USERD_WORKER_RPC_RPC_MESSAGE_H

#include <grpc/byte_buffer.h>
#include <grpc/status.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/attributes.h"
#include "worker/rpc/rpc_arena.h"

/* Why a message was refused: the status that the gRPC documents name for it, and words for the
 * client. */
struct rpc_message_refusal {
    grpc_status_code status;
    char text[160];
};

/* Decodes `buffer` as a `descriptor` into the arena; nothing of `buffer` is needed afterwards. At
 * most `limit_bytes`, as sent and after inflating. NULL with *ret_refusal filled in when it cannot
 * be. */
ProtobufCMessage *rpc_message_decode(const ProtobufCMessageDescriptor *descriptor,
    const grpc_byte_buffer *buffer, size_t limit_bytes, struct rpc_arena *arena,
    struct rpc_message_refusal *ret_refusal);

/* Packs a message into one slice that the caller owns. */
grpc_slice rpc_message_encode(const ProtobufCMessage *message);

/* The text fields of a packed message, nested ones included, are UTF-8 without NUL. protobuf-c
 * looks at neither, and cuts a text at its first NUL. Bytes that do not parse are not this
 * function's business: they count as fine. */
bool rpc_message_has_valid_text(
    const ProtobufCMessageDescriptor *descriptor, const uint8_t *bytes, size_t length);

#endif
