/* What rabbitmq-c has decoded, as Python objects. Everything is copied; what returns NULL has set an exception. */
#include "rabbitmq_c.h"

static PyObject *text(amqp_bytes_t from) {
    return PyUnicode_DecodeUTF8(from.bytes, (Py_ssize_t)from.len, NULL);
}

static PyObject *bytes(amqp_bytes_t from) {
    return PyBytes_FromStringAndSize(from.bytes, (Py_ssize_t)from.len);
}

static PyObject *from_table(PyObject *moment, const amqp_table_t *table, int depth);
static PyObject *from_array(PyObject *moment, const amqp_array_t *array, int depth);

static PyObject *text_or_bytes(amqp_bytes_t from) {
    PyObject *found = text(from);
    if (!found && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        found = bytes(from);
    }
    return found;
}

static PyObject *from_value(PyObject *moment, const amqp_field_value_t *field, int depth) {
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
    case 'F': return from_table(moment, &field->value.table, depth + 1);
    case 'A': return from_array(moment, &field->value.array, depth + 1);
    case 'V': return Py_NewRef(Py_None);
    case 'T': {
        PyObject *seconds = PyLong_FromUnsignedLongLong(field->value.u64);
        PyObject *found = seconds ? PyObject_CallFunctionObjArgs(moment, seconds, NULL) : NULL;
        Py_XDECREF(seconds);
        return found;
    }
    default: return PyErr_Format(PyExc_ValueError, "a field of the kind %d", field->kind);
    }
}

static PyObject *from_table(PyObject *moment, const amqp_table_t *table, int depth) {
    if (depth > DEEPEST)
        return PyErr_Format(PyExc_ValueError, "more than %d tables within each other", DEEPEST);
    PyObject *found = PyDict_New();
    for (int i = 0; found && i < table->num_entries; i++) {
        PyObject *key = text_or_bytes(table->entries[i].key);
        PyObject *value = key ? from_value(moment, &table->entries[i].value, depth) : NULL;
        int failed = !value || PyDict_SetItem(found, key, value);
        Py_XDECREF(key);
        Py_XDECREF(value);
        if (failed)
            Py_CLEAR(found);
    }
    return found;
}

static PyObject *from_array(PyObject *moment, const amqp_array_t *array, int depth) {
    if (depth > DEEPEST)
        return PyErr_Format(PyExc_ValueError, "more than %d tables within each other", DEEPEST);
    PyObject *found = PyList_New(array->num_entries);
    for (int i = 0; found && i < array->num_entries; i++) {
        PyObject *value = from_value(moment, &array->entries[i], depth);
        if (value)
            PyList_SetItem(found, i, value);
        else
            Py_CLEAR(found);
    }
    return found;
}

static PyObject *from_property(PyObject *moment, const void *at, char kind) {
    switch (kind) {
    case 's': return text(*(const amqp_bytes_t *)at);
    case 'F': return from_table(moment, at, 0);
    case 'o': return PyLong_FromLong(*(const uint8_t *)at);
    default: return PyLong_FromUnsignedLongLong(*(const uint64_t *)at);
    }
}

PyObject *from_properties(PyObject *moment, const amqp_basic_properties_t *from) {
    PyObject *found = PyDict_New();
    for (int i = 0; found && i < PROPERTIES; i++) {
        if (!(from->flags & FLAG(i)))
            continue;
        const property *each = &PROPERTY[i];
        PyObject *value = from_property(moment, (const char *)from + each->at, each->kind);
        if (!value || PyDict_SetItem(found, each->name, value))
            Py_CLEAR(found);
        Py_XDECREF(value);
    }
    return found;
}

PyObject *from_deliver(const amqp_basic_deliver_t *from) {
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

