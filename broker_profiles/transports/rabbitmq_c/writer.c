/* Messages that are published, as the bytes to be sent. What is rare or large is left to py-amqp. */
#include "rabbitmq_c.h"

typedef struct {
    PyObject_HEAD
    rabbitmq_c c;
    amqp_pool_t pool;
    unsigned char *room; /* for encoded properties */
} Writer;

enum { ROOM = 65536, FRAME = FRAME_HEADER + 1, METHOD_HEADER = 4 };

static unsigned char *put(unsigned char *at, unsigned long long number, int size) {
    for (int i = size - 1; i >= 0; i--) {
        at[i] = (unsigned char)number;
        number >>= 8;
    }
    return at + size;
}

static unsigned char *put_bytes(unsigned char *at, const void *from, size_t size) {
    memcpy(at, from, size);
    return at + size;
}

static unsigned char *begin_frame(unsigned char *at, int type, unsigned channel, size_t size) {
    return put(put(put(at, (unsigned)type, 1), channel, 2), size, 4);
}

/* Return the size of the encoded properties, or -1 with an exception where py-amqp is to encode them. */
static int encode(Writer *self, PyObject *properties) {
    amqp_basic_properties_t given;
    amqp_bytes_t room = {ROOM, self->room};
    int size = to_properties(&self->c, &self->pool, properties, &given);
    if (!size)
        size = self->c.encode_properties(CLASS_BASIC, &given, room);
    self->c.recycle_pool(&self->pool);
    if (size < 0 && !PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "rabbitmq-c does not encode these properties");
    return size;
}

static PyObject *frames(unsigned channel, uint32_t method, const Py_buffer *arguments, const void *properties,
                        size_t size, const Py_buffer *body) {
    size_t first = METHOD_HEADER + (size_t)arguments->len, second = CONTENT_HEADER + size, third = (size_t)body->len;
    size_t all = FRAME + first + FRAME + second + (third ? FRAME + third : 0);
    PyObject *made = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)all);
    if (!made)
        return NULL;
    unsigned char *at = (unsigned char *)PyBytes_AsString(made);
    at = put(begin_frame(at, METHOD, channel, first), method, 4);
    at = put(put_bytes(at, arguments->buf, (size_t)arguments->len), FRAME_END, 1);
    at = put(put(put(begin_frame(at, HEADER, channel, second), CLASS_BASIC, 2), 0, 2), third, 8);
    at = put(put_bytes(at, properties, size), FRAME_END, 1);
    if (third)
        put(put_bytes(begin_frame(at, BODY, channel, third), body->buf, third), FRAME_END, 1);
    return made;
}

PyDoc_STRVAR(publish_doc, "publish(channel, method, arguments, properties, body, largest) -> bytes or None\n\n"
    "Return the frames of a message, with the encoded arguments of a method of that number; None where it has\n"
    "properties that py-amqp is to encode, or a frame would be larger than `largest`.");

static PyObject *Writer_publish(Writer *self, PyObject *args) {
    unsigned channel, method;
    Py_ssize_t largest;
    PyObject *properties, *made = NULL;
    Py_buffer arguments, body;
    if (!PyArg_ParseTuple(args, "IIy*O!y*n", &channel, &method, &arguments, &PyDict_Type, &properties, &body,
                          &largest))
        return NULL;
    int size = encode(self, properties);
    if (size >= 0) {
        Py_ssize_t longest = body.len > CONTENT_HEADER + size ? body.len : CONTENT_HEADER + size;
        made = longest + FRAME > largest ? Py_NewRef(Py_None)
                                         : frames(channel, method, &arguments, self->room, (size_t)size, &body);
    } else if (!PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_Clear();
        made = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&arguments);
    PyBuffer_Release(&body);
    return made;
}

static PyObject *Writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *path;
    rabbitmq_c c;
    if (kwargs && PyDict_Size(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Writer takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O", &path) || load_rabbitmq_c(&c, path))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Writer *self = (Writer *)allocate(type, 0);
    if (!self)
        return NULL;
    self->c = c;
    self->c.init_pool(&self->pool, PAGE);
    self->room = PyMem_Malloc(ROOM);
    if (!self->room) {
        Py_DECREF((PyObject *)self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void Writer_dealloc(Writer *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    self->c.empty_pool(&self->pool);
    PyMem_Free(self->room);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef METHODS[] = {
    {"publish", (PyCFunction)Writer_publish, METH_VARARGS, publish_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(writer_doc, "Writer(library)\n\n"
    "Writes messages: rabbitmq-c is in the file `library`. Raises ImportError where it is not there.");

static PyType_Slot SLOTS[] = {
    {Py_tp_doc, (void *)writer_doc},
    {Py_tp_new, Writer_new},
    {Py_tp_dealloc, Writer_dealloc},
    {Py_tp_methods, METHODS},
    {0, NULL},
};

PyType_Spec WRITER = {
    "broker_profiles.transports._rabbitmq_c.Writer", sizeof(Writer), 0, Py_TPFLAGS_DEFAULT, SLOTS,
};
