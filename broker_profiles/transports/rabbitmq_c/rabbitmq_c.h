/* rabbitmq-c, the client in C, as far as it is used here, and what the files of this binding know of each other.
 *
 * It is loaded from the package `librabbitmq`, which exports it. The structures are those of its amqp.h and
 * amqp_framing.h, which have been the same since version 0.8.
 */
#ifndef RABBITMQ_C_H
#define RABBITMQ_C_H

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    size_t len;
    void *bytes;
} amqp_bytes_t;

typedef struct {
    int num_entries;
    struct amqp_table_entry_t_ *entries;
} amqp_table_t;

typedef struct {
    int num_entries;
    struct amqp_field_value_t_ *entries;
} amqp_array_t;

typedef struct amqp_field_value_t_ {
    uint8_t kind;
    union {
        int boolean;
        int8_t i8;
        uint8_t u8;
        int16_t i16;
        uint16_t u16;
        int32_t i32;
        uint32_t u32;
        int64_t i64;
        uint64_t u64;
        float f32;
        double f64;
        amqp_bytes_t bytes;
        amqp_table_t table;
        amqp_array_t array;
    } value;
} amqp_field_value_t;

typedef struct amqp_table_entry_t_ {
    amqp_bytes_t key;
    amqp_field_value_t value;
} amqp_table_entry_t;

typedef struct {
    int num_blocks;
    void **blocklist;
} amqp_pool_blocklist_t;

typedef struct {
    size_t pagesize;
    amqp_pool_blocklist_t pages;
    amqp_pool_blocklist_t large_blocks;
    int next_page;
    char *alloc_block;
    size_t alloc_used;
} amqp_pool_t;

typedef struct {
    amqp_bytes_t consumer_tag;
    uint64_t delivery_tag;
    int redelivered;
    amqp_bytes_t exchange;
    amqp_bytes_t routing_key;
} amqp_basic_deliver_t;

typedef struct {
    uint32_t flags;
    amqp_bytes_t content_type;
    amqp_bytes_t content_encoding;
    amqp_table_t headers;
    uint8_t delivery_mode;
    uint8_t priority;
    amqp_bytes_t correlation_id;
    amqp_bytes_t reply_to;
    amqp_bytes_t expiration;
    amqp_bytes_t message_id;
    uint64_t timestamp;
    amqp_bytes_t type;
    amqp_bytes_t user_id;
    amqp_bytes_t app_id;
    amqp_bytes_t cluster_id;
} amqp_basic_properties_t;

typedef struct {
    void (*init_pool)(amqp_pool_t *, size_t);
    void (*recycle_pool)(amqp_pool_t *);
    void (*empty_pool)(amqp_pool_t *);
    void *(*pool_alloc)(amqp_pool_t *, size_t);
    int (*decode_method)(uint32_t, amqp_pool_t *, amqp_bytes_t, void **);
    int (*decode_properties)(uint16_t, amqp_pool_t *, amqp_bytes_t, void **);
    int (*encode_properties)(uint16_t, void *, amqp_bytes_t);
} rabbitmq_c;

enum { METHOD = 1, HEADER = 2, BODY = 3 };
enum { FRAME_HEADER = 7, FRAME_END = 0xCE, PAGE = 4096 };
enum { CLASS_BASIC = 60, CONTENT_HEADER = 12, PROPERTIES = 14 };

/* Tables within tables, further than which nothing is followed: py-amqp may try. */
enum { DEEPEST = 64 };

/* A property of a message: `s` for text, `F` for the table of headers, `o` for a byte, `L` for eight. */
typedef struct {
    const char *text;
    char kind;
    size_t at; /* in amqp_basic_properties_t */
    PyObject *name;
} property;

/* In the order of their flags: the first one's is the highest bit of 16. */
extern property PROPERTY[PROPERTIES];

#define FLAG(number) ((uint32_t)1 << (15 - (number)))

/* module.c: find rabbitmq-c in a file; -1 with an ImportError where it is not there. */
int load_rabbitmq_c(rabbitmq_c *c, PyObject *path);

/* decode.c: what rabbitmq-c has decoded, as Python objects; NULL with an exception. */
PyObject *from_properties(PyObject *moment, const amqp_basic_properties_t *from);
PyObject *from_deliver(const amqp_basic_deliver_t *from);

/* encode.c: a dict of properties, as rabbitmq-c takes it; -1 with an exception. It points into the dict. */
int to_properties(const rabbitmq_c *c, amqp_pool_t *pool, PyObject *from, amqp_basic_properties_t *to);

extern PyType_Spec READER;
extern PyType_Spec WRITER;

#endif
