"""align's report as JUnit XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from msgspec import UNSET

from qlutattn_patch.proof.align import Report, reasons, short


def junit(report: Report) -> bytes:
    """One test case for each case, with its class (the types) and time, and one for failures that belong to no case."""
    name = f"align_attn.{report.document.preset}"
    suite = ET.Element("testsuite", name=name)
    total = 0.0
    for case in report.cases:
        seconds = 0.0 if case.seconds is UNSET else float(case.seconds)
        total += seconds
        of_types = f"{name}.{short(case.type_k)}.{short(case.type_v)}"
        _add(
            suite,
            case.id,
            of_types,
            seconds,
            "" if case.ok else "\n".join([*reasons(case), f"repeat: {report.repeat_of(case)}"]),
        )
    if report.faults:
        _add(suite, "align_attn", name, 0.0, "\n".join(report.faults))
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.attrib |= {"errors": "0", "skipped": "0", "time": f"{total:.3f}"}
    document = ET.Element("testsuites")
    document.append(suite)
    text: bytes = ET.tostring(document, encoding="utf-8", xml_declaration=True)
    return text


def _add(suite: ET.Element, test: str, class_name: str, seconds: float, why: str) -> None:
    entry = ET.SubElement(suite, "testcase", classname=class_name, name=test, time=f"{seconds:.3f}")
    if why:
        ET.SubElement(entry, "failure", message=_xml(why.splitlines()[0])).text = _xml(why)


def _xml(text: str) -> str:
    return "".join(c if c >= " " or c in "\n\t" else "?" for c in text)
