/* The module `_rabbitmq_c`: a binding to the decoders and encoders of rabbitmq-c. */
#include "rabbitmq_c.h"
#include <dlfcn.h>

#define AT(name) offsetof(amqp_basic_properties_t, name)

property PROPERTY[PROPERTIES] = {
    {"content_type", 's', AT(content_type), NULL},
    {"content_encoding", 's', AT(content_encoding), NULL},
    {"application_headers", 'F', AT(headers), NULL},
    {"delivery_mode", 'o', AT(delivery_mode), NULL},
    {"priority", 'o', AT(priority), NULL},
    {"correlation_id", 's', AT(correlation_id), NULL},
    {"reply_to", 's', AT(reply_to), NULL},
    {"expiration", 's', AT(expiration), NULL},
    {"message_id", 's', AT(message_id), NULL},
    {"timestamp", 'L', AT(timestamp), NULL},
    {"type", 's', AT(type), NULL},
    {"user_id", 's', AT(user_id), NULL},
    {"app_id", 's', AT(app_id), NULL},
    {"cluster_id", 's', AT(cluster_id), NULL},
};

static int find(void *library, const char *name, void **function) {
    *function = dlsym(library, name);
    return *function != NULL;
}

static int load_from(rabbitmq_c *c, const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        PyErr_SetString(PyExc_ImportError, dlerror());
        return -1;
    }
    if (find(library, "init_amqp_pool", (void **)&c->init_pool) &&
        find(library, "recycle_amqp_pool", (void **)&c->recycle_pool) &&
        find(library, "empty_amqp_pool", (void **)&c->empty_pool) &&
        find(library, "amqp_pool_alloc", (void **)&c->pool_alloc) &&
        find(library, "amqp_decode_method", (void **)&c->decode_method) &&
        find(library, "amqp_decode_properties", (void **)&c->decode_properties) &&
        find(library, "amqp_encode_properties", (void **)&c->encode_properties))
        return 0; /* it stays loaded, as every library does */
    PyErr_Format(PyExc_ImportError, "%s does not export rabbitmq-c", path);
    dlclose(library);
    return -1;
}

int load_rabbitmq_c(rabbitmq_c *c, PyObject *path) {
    PyObject *encoded;
    if (!PyUnicode_FSConverter(path, &encoded))
        return -1;
    int failed = load_from(c, PyBytes_AsString(encoded));
    Py_DECREF(encoded);
    return failed;
}

static int add(PyObject *module, const char *name, PyType_Spec *spec) {
    PyObject *type = PyType_FromSpec(spec);
    int failed = !type || PyModule_AddObjectRef(module, name, type);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "_rabbitmq_c", "Messages decoded and encoded by rabbitmq-c.", -1, NULL, NULL, NULL, NULL,
    NULL,
};

PyMODINIT_FUNC PyInit__rabbitmq_c(void) {
    for (int i = 0; i < PROPERTIES; i++) {
        PROPERTY[i].name = PyUnicode_InternFromString(PROPERTY[i].text);
        if (!PROPERTY[i].name)
            return NULL;
    }
    PyObject *module = PyModule_Create(&MODULE);
    if (module && (add(module, "Reader", &READER) || add(module, "Writer", &WRITER)))
        Py_CLEAR(module);
    return module;
}
