"""The results document as JUnit XML: a suite for each column, a test for each case.

A test fails only where the run does: a declared promise is broken, the suite failed, or a server could
not be had. What a baseline breaks, and what a profile breaks and does not promise, counts as skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree as ET

Document = Mapping[str, Any]

#: What XML 1.0 cannot hold, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(document: Document) -> str:
    """Return the XML."""
    root = ET.Element("testsuites", name="broker-profiles compare")
    for column in document["columns"]:
        root.append(_suite(document, column))
    _add_totals(root, list(root))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(document: Document, column: Mapping[str, Any]) -> ET.Element:
    name = column["name"]
    suite = ET.Element("testsuite", name=_clean(name), timestamp=document["started"])
    properties = ET.SubElement(suite, "properties")
    for server in column["servers"]:
        value = " ".join(filter(None, (server["version"], f"({server['origin']})", server["digest"])))
        ET.SubElement(properties, "property", name=_clean(server["system"]), value=_clean(value))
    if column["unavailable"]:
        test = _test(suite, name, "server", 0.0)
        ET.SubElement(test, "error", message=_clean(column["unavailable"]))
    for cell in document["cells"]:
        if cell["column"] == name:
            _add_tests(suite, column, cell)
    _add_totals(suite, [suite])
    return suite


def _add_tests(suite: ET.Element, column: Mapping[str, Any], cell: Mapping[str, Any]) -> None:
    classname = f"{column['name']}.{cell['promise']}"
    declared = cell["promise"] in column["declared"]
    for case in cell["cases"]:
        test = _test(suite, classname, case["id"], case["seconds"])
        message = _clean(case["detail"])
        match case["outcome"]:
            case "broken" if declared:
                ET.SubElement(test, "failure", message=message).text = _evidence(case)
            case "broken":
                ET.SubElement(test, "skipped", message=f"broken, and not promised: {message}")
            case "error":
                ET.SubElement(test, "error", message=message).text = _evidence(case)
            case "not applicable":
                ET.SubElement(test, "skipped", message=message)
            case _:
                pass
    for case in cell["not_run"]:
        ET.SubElement(_test(suite, classname, case["id"], 0.0), "skipped", message="not run")


def _test(suite: ET.Element, classname: str, name: str, seconds: float) -> ET.Element:
    attributes = {"classname": _clean(classname), "name": _clean(name), "time": f"{seconds:.3f}"}
    return ET.SubElement(suite, "testcase", attributes)


def _evidence(case: Mapping[str, Any]) -> str:
    return _clean("\n".join(_evidence_lines(case)))


def _evidence_lines(case: Mapping[str, Any]) -> Iterator[str]:
    yield case["detail"]
    for name, ids in case["account"].items():
        if isinstance(ids, Mapping) and ids["count"]:
            yield f"{name}: {ids['count']}: {', '.join(ids['ids'])}"
    for name, value in case["facts"].items():
        yield f"{name}: {value}"
    yield f"repeat it: {case['repeat']}"
    for name, text in case["logs"].items():
        yield f"-- {name} --\n{text}"


def _add_totals(element: ET.Element, parts: list[ET.Element]) -> None:
    tests = [test for part in parts for test in part.iter("testcase")]
    element.set("tests", str(len(tests)))
    for plural, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(plural, str(sum(test.find(tag) is not None for test in tests)))
    element.set("time", f"{sum(float(test.get('time', 0)) for test in tests):.3f}")


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
