"""One module a system, each with ``SYSTEM``: image, port, URL, probe and native command."""
