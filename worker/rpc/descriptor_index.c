#include "worker/rpc/descriptor_index.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

#include "rpc/descriptors.pb-c.h"

/* proto/services.binpb: `protoc --include_imports --descriptor_set_out`. */
__asm__(".section .rodata\n"
        ".balign 16\n"
        ".hidden userd_descriptor_set_start\n"
        ".hidden userd_descriptor_set_end\n"
        ".global userd_descriptor_set_start\n"
        ".global userd_descriptor_set_end\n"
        "userd_descriptor_set_start:\n"
        ".incbin \"" USERD_DESCRIPTOR_SET "\"\n"
        "userd_descriptor_set_end:\n"
        ".byte 0\n"
        ".previous\n");
extern const uint8_t userd_descriptor_set_start[];
extern const uint8_t userd_descriptor_set_end[];

struct symbol {
    char *name; /* owned: full name, without a leading dot */
    size_t file;
    bool is_message;
};

struct descriptor_index {
    Userd__Descriptors__FileSet *set; /* owned */
    Userd__Descriptors__File **files; /* owned, as are its members; in the order of the set */
    size_t file_count;
    struct symbol *symbols; /* owned, sorted by name */
    size_t symbol_count;
    size_t symbol_capacity;
};

/* ---- building ---- */

/* Returns the full name, which the index owns. */
static const char *add_symbol(struct descriptor_index *index, size_t file, const char *scope,
    const char *name, bool is_message)
{
    if (index->symbol_count == index->symbol_capacity) {
        index->symbol_capacity = index->symbol_capacity == 0 ? 64 : index->symbol_capacity * 2;
        index->symbols =
            reallocarray(index->symbols, index->symbol_capacity, sizeof(*index->symbols));
    }
    char *full_name = NULL;
    if (index->symbols == NULL ||
        asprintf(&full_name, "%s%s%s", scope, scope[0] == '\0' ? "" : ".", name) < 0) {
        log_error("out of memory where=descriptor_index");
        abort();
    }
    index->symbols[index->symbol_count++] =
        (struct symbol){.name = full_name, .file = file, .is_message = is_message};
    return full_name;
}

static void add_message(struct descriptor_index *index, size_t file, const char *scope,
    const Userd__Descriptors__Message *message)
{
    const char *name = add_symbol(index, file, scope, message->name, true);
    for (size_t i = 0; i < message->n_field; i++)
        (void)add_symbol(index, file, name, message->field[i]->name, false);
    for (size_t i = 0; i < message->n_enum_type; i++)
        (void)add_symbol(index, file, name, message->enum_type[i]->name, false);
    for (size_t i = 0; i < message->n_nested_type; i++)
        add_message(index, file, name, message->nested_type[i]);
}

static void add_file(struct descriptor_index *index, size_t file)
{
    const Userd__Descriptors__File *source = index->files[file];
    for (size_t i = 0; i < source->n_message_type; i++)
        add_message(index, file, source->package, source->message_type[i]);
    for (size_t i = 0; i < source->n_enum_type; i++)
        (void)add_symbol(index, file, source->package, source->enum_type[i]->name, false);
    for (size_t i = 0; i < source->n_service; i++) {
        const Userd__Descriptors__Service *service = source->service[i];
        const char *name = add_symbol(index, file, source->package, service->name, false);
        for (size_t j = 0; j < service->n_method; j++)
            (void)add_symbol(index, file, name, service->method[j]->name, false);
    }
}

static int compare_symbols(const void *left, const void *right)
{
    return strcmp(((const struct symbol *)left)->name, ((const struct symbol *)right)->name);
}

struct descriptor_index *descriptor_index_free(struct descriptor_index *index)
{
    if (index == NULL)
        return NULL;
    for (size_t i = 0; i < index->symbol_count; i++)
        free(index->symbols[i].name);
    free(index->symbols);
    for (size_t i = 0; i < index->file_count; i++)
        userd__descriptors__file__free_unpacked(index->files[i], NULL);
    free(index->files);
    userd__descriptors__file_set__free_unpacked(index->set, NULL);
    free(index);
    return NULL;
}

static void descriptor_index_freep(struct descriptor_index **index)
{
    (void)descriptor_index_free(*index);
}

int descriptor_index_new(struct descriptor_index **ret_index)
{
    struct descriptor_index *index CLEANUP(descriptor_index_freep) = calloc(1, sizeof(*index));
    if (index == NULL)
        return -ENOMEM;
    size_t length = (size_t)(userd_descriptor_set_end - userd_descriptor_set_start);
    index->set = userd__descriptors__file_set__unpack(NULL, length, userd_descriptor_set_start);
    if (index->set == NULL || index->set->n_file == 0)
        return -EPROTO;
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers is meant */
    index->files = calloc(index->set->n_file, sizeof(*index->files));
    if (index->files == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < index->set->n_file; i++) {
        index->files[i] = userd__descriptors__file__unpack(
            NULL, index->set->file[i].len, index->set->file[i].data);
        if (index->files[i] == NULL)
            return -EPROTO;
        index->file_count++;
        add_file(index, i);
    }
    if (index->symbols == NULL)
        return -EPROTO; /* every file of ours declares something */
    qsort(index->symbols, index->symbol_count, sizeof(*index->symbols), compare_symbols);
    *ret_index = TAKE_PTR(index);
    return 0;
}

/* ---- asking ---- */

size_t descriptor_index_file_count(const struct descriptor_index *index)
{
    return index->file_count;
}

int descriptor_index_find_file(const struct descriptor_index *index, const char *file_name)
{
    for (size_t i = 0; i < index->file_count; i++) {
        if (strcmp(index->files[i]->name, file_name) == 0)
            return (int)i;
    }
    return -1;
}

static const struct symbol *find_symbol(const struct descriptor_index *index, const char *name)
{
    size_t low = 0;
    size_t high = index->symbol_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, index->symbols[middle].name);
        if (order == 0)
            return &index->symbols[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

int descriptor_index_find_symbol(const struct descriptor_index *index, const char *symbol)
{
    const struct symbol *found = find_symbol(index, symbol);
    return found == NULL ? -1 : (int)found->file;
}

bool descriptor_index_has_message(const struct descriptor_index *index, const char *name)
{
    const struct symbol *found = find_symbol(index, name);
    return found != NULL && found->is_message;
}

/* Breadth first: the list of what is collected is also the list of what is still to be looked at.
 */
size_t descriptor_index_collect(
    const struct descriptor_index *index, size_t file, ProtobufCBinaryData *ret_descriptors)
{
    assert(file < index->file_count);
    size_t count = 0;
    ret_descriptors[count++] = index->set->file[file];
    for (size_t i = 0; i < count; i++) {
        size_t current = 0;
        while (index->set->file[current].data != ret_descriptors[i].data)
            current++;
        for (size_t j = 0; j < index->files[current]->n_dependency; j++) {
            int imported = descriptor_index_find_file(index, index->files[current]->dependency[j]);
            bool is_new = imported >= 0;
            for (size_t k = 0; k < count && is_new; k++)
                is_new = ret_descriptors[k].data != index->set->file[imported].data;
            if (is_new)
                ret_descriptors[count++] = index->set->file[imported];
        }
    }
    return count;
}
