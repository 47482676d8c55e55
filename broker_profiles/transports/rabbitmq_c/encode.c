/* Properties of a message, as rabbitmq-c takes them: the way back of decode.c.
 *
 * Nothing is copied: strings stay where Python has them, for as long as the dict lives. What py-amqp would write
 * otherwise, or refuse, is an error here, and left to it.
 */
#include "rabbitmq_c.h"

enum { LONGEST_KEY = 255 };

static int to_table(const rabbitmq_c *c, amqp_pool_t *pool, PyObject *from, amqp_table_t *to, int depth);
static int to_array(const rabbitmq_c *c, amqp_pool_t *pool, PyObject *from, amqp_array_t *to, int depth);

static int unknown(const char *what) {
    PyErr_Format(PyExc_ValueError, "%s is left to py-amqp", what);
    return -1;
}

static int to_text(PyObject *from, amqp_bytes_t *to) {
    Py_ssize_t size;
    if (!PyUnicode_Check(from))
        return unknown("what is no text");
    to->bytes = (void *)PyUnicode_AsUTF8AndSize(from, &size);
    to->len = to->bytes ? (size_t)size : 0;
    return to->bytes ? 0 : -1;
}

static int to_number(PyObject *from, amqp_field_value_t *to) {
    long long number = PyLong_AsLongLong(from);
    if (number == -1 && PyErr_Occurred())
        return -1;
    if (number >= -2147483647 && number <= 2147483647) {
        to->kind = 'I';
        to->value.i32 = (int32_t)number;
    } else {
        to->kind = 'L';
        to->value.i64 = number;
    }
    return 0;
}

static int to_value(const rabbitmq_c *c, amqp_pool_t *pool, PyObject *from, amqp_field_value_t *to, int depth) {
    if (PyUnicode_Check(from)) {
        to->kind = 'S';
        return to_text(from, &to->value.bytes);
    }
    if (from == Py_None) {
        to->kind = 'V';
        return 0;
    }
    if (PyBool_Check(from)) {
        to->kind = 't';
        to->value.boolean = from == Py_True;
        return 0;
    }
    if (PyLong_Check(from))
        return to_number(from, to);
    if (PyFloat_Check(from)) {
        to->kind = 'd';
        to->value.f64 = PyFloat_AsDouble(from);
        return 0;
    }
    if (PyDict_Check(from)) {
        to->kind = 'F';
        return to_table(c, pool, from, &to->value.table, depth + 1);
    }
    if (PyList_Check(from) || PyTuple_Check(from)) {
        to->kind = 'A';
        return to_array(c, pool, from, &to->value.array, depth + 1);
    }
    return unknown("a value of another type");
}

static int to_table(const rabbitmq_c *c, amqp_pool_t *pool, PyObject *from, amqp_table_t *to, int depth) {
    PyObject *key, *value;
    Py_ssize_t at = 0, size = PyDict_Size(from);
    if (depth > DEEPEST || size > 0xFFFF)
        return unknown("a table that is so large");
    to->num_entries = 0;
    to->entries = c->pool_alloc(pool, (size_t)size * sizeof(amqp_table_entry_t));
    if (size && !to->entries) {
        PyErr_NoMemory();
        return -1;
    }
    while (PyDict_Next(from, &at, &key, &value)) {
        amqp_table_entry_t *entry = &to->entries[to->num_entries++];
        if (to_text(key, &entry->key) || to_value(c, pool, value, &entry->value, depth))
            return -1;
        if (entry->key.len > LONGEST_KEY)
            return unknown("a key that is so long");
    }
    return 0;
}

static int to_array(const rabbitmq_c *c, amqp_pool_t *pool, PyObject *from, amqp_array_t *to, int depth) {
    int is_list = PyList_Check(from);
    Py_ssize_t size = is_list ? PyList_Size(from) : PyTuple_Size(from);
    if (depth > DEEPEST || size > 0xFFFF)
        return unknown("an array that is so large");
    to->num_entries = (int)size;
    to->entries = c->pool_alloc(pool, (size_t)size * sizeof(amqp_field_value_t));
    if (size && !to->entries) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *each = is_list ? PyList_GetItem(from, i) : PyTuple_GetItem(from, i);
        if (!each || to_value(c, pool, each, &to->entries[i], depth))
            return -1;
    }
    return 0;
}

static int to_whole_number(PyObject *from, unsigned long long most, unsigned long long *to) {
    if (!PyLong_Check(from))
        return unknown("what is no number");
    *to = PyLong_AsUnsignedLongLong(from);
    if (PyErr_Occurred())
        return -1;
    return *to > most ? unknown("a number that is so large") : 0;
}

static int to_property(const rabbitmq_c *c, amqp_pool_t *pool, PyObject *from, void *to, char kind) {
    unsigned long long number = 0;
    switch (kind) {
    case 's': return to_text(from, to);
    case 'F': return PyDict_Check(from) ? to_table(c, pool, from, to, 0) : unknown("what is no table");
    case 'o':
        if (to_whole_number(from, UINT8_MAX, &number))
            return -1;
        *(uint8_t *)to = (uint8_t)number;
        return 0;
    default:
        if (to_whole_number(from, UINT64_MAX, &number))
            return -1;
        *(uint64_t *)to = number;
        return 0;
    }
}

int to_properties(const rabbitmq_c *c, amqp_pool_t *pool, PyObject *from, amqp_basic_properties_t *to) {
    memset(to, 0, sizeof *to);
    for (int i = 0; i < PROPERTIES; i++) {
        PyObject *value = PyDict_GetItemWithError(from, PROPERTY[i].name);
        if (!value && PyErr_Occurred())
            return -1;
        if (!value || value == Py_None)
            continue;
        if (to_property(c, pool, value, (char *)to + PROPERTY[i].at, PROPERTY[i].kind))
            return -1;
        to->flags |= FLAG(i);
    }
    return 0;
}
