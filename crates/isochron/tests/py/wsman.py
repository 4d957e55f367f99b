"""WS-Management by pypsrp's WSMan class: what a client of WinRM does, in the one way and
the other of naming things.

    from wsman import Client
"""

import sys
import time
import xml.etree.ElementTree as ET

from pypsrp.exceptions import WSManFaultError
from pypsrp.wsman import NAMESPACES, OptionSet, SelectorSet, WSMan

CLUSTER = "root/HyperVCluster/v2"
WMI = "http://schemas.microsoft.com/wbem/wsman/1/wmi/"
DMTF = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
WQL = "http://schemas.microsoft.com/wbem/wsman/1/WQL"
ASSOCIATIONS = "http://schemas.dmtf.org/wbem/wsman/1/cimbinding/associationFilter"
BINDING = "http://schemas.dmtf.org/wbem/wsman/1/cimbinding.xsd"
XSI = NAMESPACES["xsi"]


def tag(prefix, name):
    return "{%s}%s" % (NAMESPACES[prefix], name)


def local(element):
    return element.tag.rsplit("}", 1)[-1]


class Reference:
    """An endpoint reference: the resource's URI and its selectors."""

    def __init__(self, element):
        parameters = element.find(".//wsa:ReferenceParameters", NAMESPACES)
        self.uri = parameters.find("wsman:ResourceURI", NAMESPACES).text
        found = parameters.find("wsman:SelectorSet", NAMESPACES)
        self.selectors = {s.attrib["Name"]: s.text for s in found}

    def put_into(self, parent):
        ET.SubElement(parent, tag("wsa", "Address")).text = "http://localhost/wsman"
        parameters = ET.SubElement(parent, tag("wsa", "ReferenceParameters"))
        ET.SubElement(parameters, tag("wsman", "ResourceURI")).text = self.uri
        selectors = ET.SubElement(parameters, tag("wsman", "SelectorSet"))
        for name, value in self.selectors.items():
            ET.SubElement(selectors, tag("wsman", "Selector"), Name=name).text = value


def value(element):
    if element.attrib.get("{%s}nil" % XSI) == "true":
        return None
    if element.find("wsa:ReferenceParameters", NAMESPACES) is not None:
        return Reference(element)
    return element.text if len(element) == 0 else element[0].text


def properties(element):
    """The properties of an instance, and the class that its type says."""
    found = {}
    for child in element:
        name = local(child)
        if name in found:
            before = found[name]
            found[name] = (before if isinstance(before, list) else [before]) + [value(child)]
        else:
            found[name] = value(child)
    kind = element.attrib.get("{%s}type" % XSI)
    if kind:
        assert kind.split(":")[1] == local(element) + "_Type", kind
    return found


def selecting(selectors):
    chosen = SelectorSet()
    for name, text in selectors.items():
        chosen.add_option(name, text)
    return chosen


class Client:
    """A connection, which names things in one of the two families."""

    def __init__(self, family, **connection):
        self.family = family
        self.wsman = WSMan(**connection)

    def resource(self, classname):
        if self.family == "wmi":
            return WMI + CLUSTER + "/" + classname, {}
        if classname == "*":
            return "http://schemas.dmtf.org/wbem/wscim/1/*", {"__cimnamespace": CLUSTER}
        return DMTF + classname, {"__cimnamespace": CLUSTER}

    def get(self, reference):
        body = self.wsman.get(reference.uri, selector_set=selecting(reference.selectors))
        return properties(body[0])

    def enumerate(self, classname, filling=lambda element: None, size=2):
        """The instances with their references, a few at a time."""
        uri, selectors = self.resource(classname)
        request = ET.Element(tag("wsen", "Enumerate"))
        ET.SubElement(request, tag("wsman", "OptimizeEnumeration"))
        ET.SubElement(request, tag("wsman", "MaxElements")).text = str(size)
        mode = ET.SubElement(request, tag("wsman", "EnumerationMode"))
        mode.text = "EnumerateObjectAndEPR"
        filling(request)
        body = self.wsman.enumerate(uri, request, selector_set=selecting(selectors))
        response = body.find("wsen:EnumerateResponse", NAMESPACES)
        found = list(response.find("wsman:Items", NAMESPACES))
        ended = response.find("wsman:EndOfSequence", NAMESPACES)
        while ended is None:
            context = response.find("wsen:EnumerationContext", NAMESPACES).text
            request = ET.Element(tag("wsen", "Pull"))
            ET.SubElement(request, tag("wsen", "EnumerationContext")).text = context
            ET.SubElement(request, tag("wsen", "MaxElements")).text = str(size)
            body = self.wsman.pull(uri, request, selector_set=selecting(selectors))
            response = body.find("wsen:PullResponse", NAMESPACES)
            found += list(response.find("wsen:Items", NAMESPACES))
            ended = response.find("wsen:EndOfSequence", NAMESPACES)
        return [(Reference(item[1]), properties(item[0])) for item in found]

    def query(self, text):
        def filling(request):
            ET.SubElement(request, tag("wsman", "Filter"), Dialect=WQL).text = text
        return self.enumerate("*", filling)

    def associated(self, reference, classname):
        """What an instance is associated with, of a class."""
        def filling(request):
            walk = ET.SubElement(request, tag("wsman", "Filter"), Dialect=ASSOCIATIONS)
            walk = ET.SubElement(walk, "{%s}AssociatedInstances" % BINDING)
            reference.put_into(ET.SubElement(walk, "{%s}Object" % BINDING))
            ET.SubElement(walk, "{%s}ResultClassName" % BINDING).text = classname
        return self.enumerate("*", filling)

    def invoke(self, classname, method, **parameters):
        """A method of the only instance of a class; its return value, and the rest."""
        uri, selectors = self.resource(classname)
        request = ET.Element("{%s}%s_INPUT" % (uri, method))
        for name, given in parameters.items():
            element = ET.SubElement(request, "{%s}%s" % (uri, name))
            if given is None:
                element.attrib["{%s}nil" % XSI] = "true"
            elif isinstance(given, Reference):
                given.put_into(element)
            else:
                element.text = str(given)
        response = self.wsman.invoke(
            uri + "/" + method, uri, request, selector_set=selecting(selectors))
        output = response.find("s:Body", NAMESPACES)[0]
        assert output.tag == "{%s}%s_OUTPUT" % (uri, method), output.tag
        found = properties(output)
        return int(found.pop("ReturnValue")), found

    def completed(self, started):
        """Follows a job until it has completed; the job."""
        code, out = started
        assert code == 4096, (code, out)
        assert "InstanceID" in out["Job"].selectors, out["Job"].selectors
        job = self.get(out["Job"])
        while job["JobState"] in ("3", "4"):
            time.sleep(0.1)
            job = self.get(out["Job"])
        assert job["JobState"] == "7", job
        return job
