/* What RabbitMQ sends, as Python objects.
 *
 * The reader takes bytes and gives messages. It has no socket, waits for nothing, and calls nobody back; those are
 * the things that the binding in the package `librabbitmq` does wrongly. What rabbitmq-c decodes points into the
 * bytes that it was given and into a pool of memory, so everything is copied before the next frame is looked at.
 *
 * Deliveries are decoded here, for they are nearly all that a worker reads. Every other frame, and a delivery that
 * holds something rare, is handed out as it came, for py-amqp to decode.
 */
#include "rabbitmq_c.h"

#define DELIVER ((uint32_t)0x003C003C)

/* No frame is so large: it would be something else than frames that is read. */
#define LARGEST_FRAME ((uint32_t)1 << 28)

/* No message is: RabbitMQ takes up to 512 MiB, and took up to 2 GiB before version 3.8. */
#define LARGEST_MESSAGE (((uint64_t)1 << 31) - 1)

/* The most properties that rabbitmq-c is given: it follows tables within tables to their end, which takes up to 32
 * times their size of the stack of a thread that may have one MiB. DEEPEST is for what it has decoded. */
#define MOST_PROPERTIES ((size_t)16384)

/* The most that is kept for a frame that has not come as a whole yet, once it has come. */
#define KEPT ((size_t)1 << 20)

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
    int broken; /* something could not be taken: what follows would be taken for something else */
} Reader;

static uint32_t number(const unsigned char *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
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
    if (encoded.len > MOST_PROPERTIES)
        return NULL;
    if (self->c.decode_properties(CLASS_BASIC, &self->pool, encoded, &decoded) >= 0)
        found = left_to_py_amqp(from_properties(self->moment, decoded));
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
    uint64_t length = (uint64_t)number(payload + 4) << 32 | number(payload + 8);
    if (length > LARGEST_MESSAGE) {
        PyErr_SetString(PyExc_ValueError, "a message of more than 2 GiB; no message is that large");
        return -1;
    }
    PyObject *properties = decode_properties(self, payload, size);
    if (!properties) {
        if (PyErr_Occurred())
            return -1;
        int failed = append(out, Py_BuildValue("(iiO)", METHOD, (int)it->channel, it->method)) ||
                     append_raw(out, HEADER, it->channel, payload, size);
        forget(self, it);
        return failed ? -1 : 0;
    }
    PyObject *body = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
    if (!body) {
        Py_DECREF(properties);
        return -1;
    }
    it->properties = properties;
    it->body = body;
    it->size = length;
    return length ? 0 : finish(self, it, out);
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
    "a frame. Raises ValueError where that is not AMQP, or MemoryError; from then on it raises ValueError.");

static PyObject *Reader_feed(Reader *self, PyObject *data) {
    Py_buffer view;
    if (self->broken) {
        PyErr_SetString(PyExc_ValueError, "what came before could not be read");
        return NULL;
    }
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE))
        return NULL;
    PyObject *out = PyList_New(0);
    self->broken = !out || take(self, view.buf, (size_t)view.len, out);
    if (self->broken)
        Py_CLEAR(out);
    PyBuffer_Release(&view);
    return out;
}

/* ---- Type -------------------------------------------------------------------------------------- */

static PyObject *Reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *path, *moment;
    rabbitmq_c c;
    if (kwargs && PyDict_Size(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Reader takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OO", &path, &moment) || load_rabbitmq_c(&c, path))
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

PyType_Spec READER = {
    "broker_profiles.transports._rabbitmq_c.Reader", sizeof(Reader), 0, Py_TPFLAGS_DEFAULT, SLOTS,
};
