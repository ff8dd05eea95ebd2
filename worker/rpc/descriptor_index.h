/* The .proto files of all services, embedded in the program, and where each name is declared: what
 * server reflection answers from. Built once at start, read only afterwards. */
#ifndef USERD_WORKER_RPC_DESCRIPTOR_INDEX_H
#define USERD_WORKER_RPC_DESCRIPTOR_INDEX_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/attributes.h"

struct descriptor_index;

/* -EPROTO when the embedded descriptors cannot be read. */
MUST_CHECK int descriptor_index_new(struct descriptor_index **ret_index);
struct descriptor_index *descriptor_index_free(struct descriptor_index *index);

size_t descriptor_index_file_count(const struct descriptor_index *index);
/* Number of the file with this name ("user/user.proto"), or that declares this name ("user.User",
 * "user.User.GetUser", messages, enums, fields); -1: none. */
int descriptor_index_find_file(const struct descriptor_index *index, const char *file_name);
int descriptor_index_find_symbol(const struct descriptor_index *index, const char *symbol);
/* A message of this name exists. */
bool descriptor_index_has_message(const struct descriptor_index *index, const char *name);

/* The file itself and then everything that it imports, each once, as packed FileDescriptorProto.
 * Writes at most descriptor_index_file_count() entries and returns how many. */
size_t descriptor_index_collect(
    const struct descriptor_index *index, size_t file, ProtobufCBinaryData *ret_descriptors);

#endif
