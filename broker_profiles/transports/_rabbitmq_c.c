/* What RabbitMQ sends, as Python objects: a binding to the decoders of rabbitmq-c.
 *
 * It takes bytes and gives messages. It has no socket, waits for nothing, and calls nobody back; those are the
 * things that the binding `librabbitmq` does wrongly. What rabbitmq-c decodes points into the bytes that it was
 * given and into a pool of memory, so everything is copied into Python objects before the next frame is looked at.
 *
 * Deliveries are decoded here, for they are nearly all that a worker reads. Every other frame, and a delivery that
 * holds something rare, is handed out as it came, for py-amqp to decode.
 *
 * rabbitmq-c is loaded from the package `librabbitmq`, which exports it. The structures below are those of its
 * amqp.h and amqp_framing.h, which have been the same since version 0.8.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <dlfcn.h>
#include <stdint.h>
#include <string.h>

/* ---- rabbitmq-c ------------------------------------------------------------------------------------------- */

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
    int (*decode_method)(uint32_t, amqp_pool_t *, amqp_bytes_t, void **);
    int (*decode_properties)(uint16_t, amqp_pool_t *, amqp_bytes_t, void **);
} rabbitmq_c;

enum { METHOD = 1, HEADER = 2, BODY = 3 };
enum { FRAME_HEADER = 7, FRAME_END = 0xCE, PAGE = 4096 };
enum { CLASS_BASIC = 60, CONTENT_HEADER = 12 };
#define DELIVER ((uint32_t)0x003C003C)

/* No frame is so large: it would be something else than frames that is read. */
#define LARGEST_FRAME ((uint32_t)1 << 28)

/* The most that is kept for a frame that has not come as a whole yet, once it has come. */
#define KEPT ((size_t)1 << 20)

/* ---- Reader ----------------------------------------------------------------------------------------------- */

/* A delivery of which not everything has come. */
typedef struct delivery {
    struct delivery *next;
    uint16_t channel;
    PyObject *method;     /* as it came */
    PyObject *arguments;  /* of basic.deliver */
    PyObject *properties; /* NULL until they have come */
    PyObject *body;
    uint64_t size;
    uint64_t received;
} delivery;

typedef struct {
    PyObject_HEAD
    rabbitmq_c c;
    amqp_pool_t pool;
    PyObject *moment; /* seconds -> what stands for a timestamp */
    unsigned char *rest;
    size_t rest_size, rest_room;
    delivery *deliveries;
} Reader;

static PyObject *NAMES[13];
static const char *const NAME_OF[13] = {
    "content_type", "content_encoding", "application_headers", "delivery_mode", "priority",
    "correlation_id", "reply_to", "expiration", "message_id", "timestamp", "type", "user_id", "app_id",
};

static uint32_t number(const unsigned char *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static PyObject *text(amqp_bytes_t from) {
    return PyUnicode_DecodeUTF8(from.bytes, (Py_ssize_t)from.len, NULL);
}

static PyObject *bytes(amqp_bytes_t from) {
    return PyBytes_FromStringAndSize(from.bytes, (Py_ssize_t)from.len);
}

/* ---- Conversion: what returns NULL has set an exception --------------------------------------------------- */

static PyObject *from_table(Reader *self, const amqp_table_t *table);
static PyObject *from_array(Reader *self, const amqp_array_t *array);

static PyObject *text_or_bytes(amqp_bytes_t from) {
    PyObject *found = text(from);
    if (!found && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        found = bytes(from);
    }
    return found;
}

static PyObject *from_value(Reader *self, const amqp_field_value_t *field) {
    switch (field->kind) {
    case 'S': return text_or_bytes(field->value.bytes);
    case 'x': return bytes(field->value.bytes);
    case 't': return PyBool_FromLong(field->value.boolean);
    case 'b': return PyLong_FromLong(field->value.i8);
    case 'B': return PyLong_FromLong(field->value.u8);
    case 's': return PyLong_FromLong(field->value.i16);
    case 'u': return PyLong_FromLong(field->value.u16);
    case 'I': return PyLong_FromLong(field->value.i32);
    case 'i': return PyLong_FromUnsignedLong(field->value.u32);
    case 'l': /* py-amqp and RabbitMQ write signed numbers as either */
    case 'L': return PyLong_FromLongLong(field->value.i64);
    case 'f': return PyFloat_FromDouble(field->value.f32);
    case 'd': return PyFloat_FromDouble(field->value.f64);
    case 'F': return from_table(self, &field->value.table);
    case 'A': return from_array(self, &field->value.array);
    case 'V': return Py_NewRef(Py_None);
    case 'T': {
        PyObject *seconds = PyLong_FromUnsignedLongLong(field->value.u64);
        PyObject *moment = seconds ? PyObject_CallFunctionObjArgs(self->moment, seconds, NULL) : NULL;
        Py_XDECREF(seconds);
        return moment;
    }
    default: return PyErr_Format(PyExc_ValueError, "a field of the kind %d", field->kind);
    }
}

static PyObject *from_table(Reader *self, const amqp_table_t *table) {
    PyObject *found = PyDict_New();
    if (!found || Py_EnterRecursiveCall(" in a table of a message")) {
        Py_XDECREF(found);
        return NULL;
    }
    for (int i = 0; i < table->num_entries; i++) {
        PyObject *key = text_or_bytes(table->entries[i].key);
        PyObject *value = key ? from_value(self, &table->entries[i].value) : NULL;
        int failed = !value || PyDict_SetItem(found, key, value);
        Py_XDECREF(key);
        Py_XDECREF(value);
        if (failed) {
            Py_CLEAR(found);
            break;
        }
    }
    Py_LeaveRecursiveCall();
    return found;
}

static PyObject *from_array(Reader *self, const amqp_array_t *array) {
    PyObject *found = PyList_New(array->num_entries);
    if (!found || Py_EnterRecursiveCall(" in an array of a message")) {
        Py_XDECREF(found);
        return NULL;
    }
    for (int i = 0; i < array->num_entries; i++) {
        PyObject *value = from_value(self, &array->entries[i]);
        if (!value) {
            Py_CLEAR(found);
            break;
        }
        PyList_SetItem(found, i, value);
    }
    Py_LeaveRecursiveCall();
    return found;
}

static PyObject *from_property(Reader *self, const amqp_basic_properties_t *from, int which) {
    switch (which) {
    case 0: return text(from->content_type);
    case 1: return text(from->content_encoding);
    case 2: return from_table(self, &from->headers);
    case 3: return PyLong_FromLong(from->delivery_mode);
    case 4: return PyLong_FromLong(from->priority);
    case 5: return text(from->correlation_id);
    case 6: return text(from->reply_to);
    case 7: return text(from->expiration);
    case 8: return text(from->message_id);
    case 9: return PyLong_FromUnsignedLongLong(from->timestamp);
    case 10: return text(from->type);
    case 11: return text(from->user_id);
    default: return text(from->app_id);
    }
}

static PyObject *from_properties(Reader *self, const amqp_basic_properties_t *from) {
    PyObject *found = PyDict_New();
    for (int i = 0; found && i < 13; i++) {
        if (!(from->flags & (uint32_t)1 << (15 - i)))
            continue;
        PyObject *value = from_property(self, from, i);
        if (!value || PyDict_SetItem(found, NAMES[i], value))
            Py_CLEAR(found);
        Py_XDECREF(value);
    }
    return found;
}

static PyObject *from_deliver(const amqp_basic_deliver_t *from) {
    PyObject *tag = text(from->consumer_tag);
    PyObject *exchange = tag ? text(from->exchange) : NULL;
    PyObject *key = exchange ? text(from->routing_key) : NULL;
    PyObject *found = NULL;
    if (key)
        found = Py_BuildValue("(OKOOO)", tag, (unsigned long long)from->delivery_tag,
                              from->redelivered ? Py_True : Py_False, exchange, key);
    Py_XDECREF(tag);
    Py_XDECREF(exchange);
    Py_XDECREF(key);
    return found;
}

/* ---- Decoding: NULL without an exception where py-amqp is to do it ---------------------------------------- */

static PyObject *left_to_py_amqp(PyObject *found) {
    if (!found && !PyErr_ExceptionMatches(PyExc_MemoryError))
        PyErr_Clear();
    return found;
}

static PyObject *decode_deliver(Reader *self, const unsigned char *payload, size_t size) {
    amqp_bytes_t encoded = {size - 4, (void *)(payload + 4)};
    void *decoded = NULL;
    PyObject *found = NULL;
    if (self->c.decode_method(DELIVER, &self->pool, encoded, &decoded) >= 0)
        found = left_to_py_amqp(from_deliver(decoded));
    self->c.recycle_pool(&self->pool);
    return found;
}

static PyObject *decode_properties(Reader *self, const unsigned char *payload, size_t size) {
    amqp_bytes_t encoded = {size - CONTENT_HEADER, (void *)(payload + CONTENT_HEADER)};
    void *decoded = NULL;
    PyObject *found = NULL;
    if (self->c.decode_properties(CLASS_BASIC, &self->pool, encoded, &decoded) >= 0)
        found = left_to_py_amqp(from_properties(self, decoded));
    self->c.recycle_pool(&self->pool);
    return found;
}

/* ---- Deliveries ------------------------------------------------------------------------------------------- */

static delivery *find(Reader *self, uint16_t channel) {
    delivery *found = self->deliveries;
    while (found && found->channel != channel)
        found = found->next;
    return found;
}

static void forget(Reader *self, delivery *it) {
    delivery **at = &self->deliveries;
    while (*at != it)
        at = &(*at)->next;
    *at = it->next;
    Py_XDECREF(it->method);
    Py_XDECREF(it->arguments);
    Py_XDECREF(it->properties);
    Py_XDECREF(it->body);
    PyMem_Free(it);
}

/* Each of these returns 0, or -1 with an exception. */

static int append(PyObject *out, PyObject *item) {
    int failed = !item || PyList_Append(out, item);
    Py_XDECREF(item);
    return failed ? -1 : 0;
}

static int append_raw(PyObject *out, int type, uint16_t channel, const unsigned char *payload, size_t size) {
    return append(out, Py_BuildValue("(iiy#)", type, (int)channel, (const char *)payload, (Py_ssize_t)size));
}

static int finish(Reader *self, delivery *it, PyObject *out) {
    PyObject *item =
        Py_BuildValue("(iOOO)", (int)it->channel, it->arguments, it->properties, it->body);
    forget(self, it);
    return append(out, item);
}

static int on_deliver(Reader *self, uint16_t channel, const unsigned char *payload, size_t size, PyObject *out) {
    PyObject *arguments = decode_deliver(self, payload, size);
    if (!arguments)
        return PyErr_Occurred() ? -1 : append_raw(out, METHOD, channel, payload, size);
    delivery *it = PyMem_Calloc(1, sizeof *it);
    if (!it) {
        Py_DECREF(arguments);
        PyErr_NoMemory();
        return -1;
    }
    it->next = self->deliveries;
    self->deliveries = it;
    it->channel = channel;
    it->arguments = arguments;
    it->method = PyBytes_FromStringAndSize((const char *)payload, (Py_ssize_t)size);
    return it->method ? 0 : -1;
}

static int on_header(Reader *self, delivery *it, const unsigned char *payload, size_t size, PyObject *out) {
    it->properties = decode_properties(self, payload, size);
    if (!it->properties) {
        if (PyErr_Occurred())
            return -1;
        int failed = append(out, Py_BuildValue("(iiO)", METHOD, (int)it->channel, it->method)) ||
                     append_raw(out, HEADER, it->channel, payload, size);
        forget(self, it);
        return failed ? -1 : 0;
    }
    it->size = (uint64_t)number(payload + 4) << 32 | number(payload + 8);
    if (it->size > (uint64_t)PY_SSIZE_T_MAX) {
        PyErr_NoMemory();
        return -1;
    }
    it->body = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)it->size);
    if (!it->body)
        return -1;
    return it->size ? 0 : finish(self, it, out);
}

static int on_body(Reader *self, delivery *it, const unsigned char *payload, size_t size, PyObject *out) {
    if (size > it->size - it->received) {
        PyErr_SetString(PyExc_ValueError, "a message is longer than RabbitMQ said");
        return -1;
    }
    memcpy(PyBytes_AsString(it->body) + it->received, payload, size);
    it->received += size;
    return it->received < it->size ? 0 : finish(self, it, out);
}

static int on_frame(Reader *self, int type, uint16_t channel, const unsigned char *payload, size_t size,
                    PyObject *out) {
    delivery *it = find(self, channel);
    if (it) {
        if (type == HEADER && !it->properties && size >= CONTENT_HEADER + 2)
            return on_header(self, it, payload, size, out);
        if (type == BODY && it->properties)
            return on_body(self, it, payload, size, out);
        PyErr_Format(PyExc_ValueError, "a frame of the type %d within a message", type);
        return -1;
    }
    if (type == METHOD && size > 4 && number(payload) == DELIVER)
        return on_deliver(self, channel, payload, size, out);
    return append_raw(out, type, channel, payload, size);
}

/* Return how many bytes were whole frames, or -1 with an exception. */
static Py_ssize_t split(Reader *self, const unsigned char *data, size_t size, PyObject *out) {
    size_t at = 0;
    while (size - at > FRAME_HEADER) {
        const unsigned char *frame = data + at;
        uint32_t length = number(frame + 3);
        if (length > LARGEST_FRAME) {
            PyErr_Format(PyExc_ValueError, "a frame of %u bytes", (unsigned)length);
            return -1;
        }
        if (size - at < (size_t)FRAME_HEADER + length + 1)
            break;
        if (frame[FRAME_HEADER + length] != FRAME_END) {
            PyErr_SetString(PyExc_ValueError, "a frame without its end");
            return -1;
        }
        uint16_t channel = (uint16_t)(frame[1] << 8 | frame[2]);
        if (on_frame(self, frame[0], channel, frame + FRAME_HEADER, length, out))
            return -1;
        at += (size_t)FRAME_HEADER + length + 1;
    }
    return (Py_ssize_t)at;
}

static int keep(Reader *self, const unsigned char *data, size_t size) {
    if (self->rest_room < self->rest_size + size) {
        size_t room = 2 * (self->rest_size + size);
        unsigned char *rest = PyMem_Realloc(self->rest, room);
        if (!rest) {
            PyErr_NoMemory();
            return -1;
        }
        self->rest = rest;
        self->rest_room = room;
    }
    memcpy(self->rest + self->rest_size, data, size);
    self->rest_size += size;
    return 0;
}

static void drop(Reader *self, size_t used) {
    self->rest_size -= used;
    memmove(self->rest, self->rest + used, self->rest_size);
    if (!self->rest_size && self->rest_room > KEPT) {
        PyMem_Free(self->rest);
        self->rest = NULL;
        self->rest_room = 0;
    }
}

static int take(Reader *self, const unsigned char *data, size_t size, PyObject *out) {
    Py_ssize_t used;
    if (!self->rest_size) {
        used = split(self, data, size, out);
        return used < 0 ? -1 : (size_t)used < size ? keep(self, data + used, size - used) : 0;
    }
    if (keep(self, data, size))
        return -1;
    used = split(self, self->rest, self->rest_size, out);
    if (used < 0)
        return -1;
    drop(self, (size_t)used);
    return 0;
}

PyDoc_STRVAR(feed_doc, "feed(data) -> list\n\n"
    "Take what was read from the connection, and return what is complete now: (channel, (consumer tag, delivery\n"
    "tag, redelivered, exchange, routing key), properties, body) for a delivery, else (type, channel, payload) of\n"
    "a frame. Raises ValueError where that is not AMQP; nothing that follows can be read then.");

static PyObject *Reader_feed(Reader *self, PyObject *data) {
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE))
        return NULL;
    PyObject *out = PyList_New(0);
    if (out && take(self, view.buf, (size_t)view.len, out))
        Py_CLEAR(out);
    PyBuffer_Release(&view);
    return out;
}

/* ---- Type and module -------------------------------------------------------------------------------------- */

static int load(rabbitmq_c *c, const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        PyErr_SetString(PyExc_ImportError, dlerror());
        return -1;
    }
    *(void **)&c->init_pool = dlsym(library, "init_amqp_pool");
    *(void **)&c->recycle_pool = dlsym(library, "recycle_amqp_pool");
    *(void **)&c->empty_pool = dlsym(library, "empty_amqp_pool");
    *(void **)&c->decode_method = dlsym(library, "amqp_decode_method");
    *(void **)&c->decode_properties = dlsym(library, "amqp_decode_properties");
    if (!c->init_pool || !c->recycle_pool || !c->empty_pool || !c->decode_method || !c->decode_properties) {
        PyErr_Format(PyExc_ImportError, "%s does not export rabbitmq-c", path);
        dlclose(library);
        return -1;
    }
    return 0; /* it stays loaded, as every library does */
}

static PyObject *Reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *path, *moment;
    rabbitmq_c c;
    if (kwargs && PyDict_Size(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Reader takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O&O", PyUnicode_FSConverter, &path, &moment))
        return NULL;
    int failed = load(&c, PyBytes_AsString(path));
    Py_DECREF(path);
    if (failed)
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Reader *self = (Reader *)allocate(type, 0);
    if (self) {
        self->c = c;
        self->c.init_pool(&self->pool, PAGE);
        self->moment = Py_NewRef(moment);
    }
    return (PyObject *)self;
}

static void Reader_dealloc(Reader *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    while (self->deliveries)
        forget(self, self->deliveries);
    PyMem_Free(self->rest);
    Py_XDECREF(self->moment);
    self->c.empty_pool(&self->pool);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef METHODS[] = {
    {"feed", (PyCFunction)Reader_feed, METH_O, feed_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(reader_doc, "Reader(library, moment)\n\n"
    "Reads one connection: rabbitmq-c is in the file `library`, and `moment` makes of seconds what stands for a\n"
    "timestamp. Raises ImportError where rabbitmq-c is not there.");

static PyType_Slot SLOTS[] = {
    {Py_tp_doc, (void *)reader_doc},
    {Py_tp_new, Reader_new},
    {Py_tp_dealloc, Reader_dealloc},
    {Py_tp_methods, METHODS},
    {0, NULL},
};

static PyType_Spec SPEC = {
    "broker_profiles.transports._rabbitmq_c.Reader", sizeof(Reader), 0, Py_TPFLAGS_DEFAULT, SLOTS,
};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "_rabbitmq_c", "What RabbitMQ sends, decoded by rabbitmq-c.", -1, NULL, NULL, NULL, NULL,
    NULL,
};

PyMODINIT_FUNC PyInit__rabbitmq_c(void) {
    for (int i = 0; i < 13; i++) {
        NAMES[i] = PyUnicode_InternFromString(NAME_OF[i]);
        if (!NAMES[i])
            return NULL;
    }
    PyObject *type = PyType_FromSpec(&SPEC);
    PyObject *module = type ? PyModule_Create(&MODULE) : NULL;
    if (!module || PyModule_AddObjectRef(module, "Reader", type))
        Py_CLEAR(module);
    Py_XDECREF(type);
    return module;
}
