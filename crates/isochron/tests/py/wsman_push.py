"""Events that the daemon delivers: subscribes by pypsrp, and is told of a snapshot's job by
the messages of each delivery mode that are acknowledged.

    wsman_push.py URL COLLECTION CONNECTION

CONNECTION is what pypsrp's WSMan takes, as JSON. The collection's machines are off.
"""

import json
import sys
import threading
import xml.etree.ElementTree as ET
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from wsman import CLUSTER, NAMESPACES, WMI, WQL, Client, local, tag

_, _, wanted, connection = sys.argv
WSE = "http://schemas.xmlsoap.org/ws/2004/08/eventing"
WSMAN = "http://schemas.dmtf.org/wbem/wsman/1/wsman"
JOBS = ("SELECT * FROM __InstanceModificationEvent WITHIN 2"
        " WHERE TargetInstance ISA 'Msvm_ConcreteJob'")


class Sink(BaseHTTPRequestHandler):
    """Keeps what it is sent, and acknowledges it."""

    protocol_version = "HTTP/1.1"
    told = {"PushWithAck": [], "Events": []}
    changed = threading.Condition()

    def do_POST(self):
        envelope = ET.fromstring(self.rfile.read(int(self.headers["Content-Length"])))
        header, body = envelope.find("s:Header", NAMESPACES), envelope.find("s:Body", NAMESPACES)
        assert header.find("wsman:AckRequested", NAMESPACES) is not None
        mode = header.find("{urn:test}Mode").text
        events = list(body)
        if mode == "Events":
            assert local(events[0]) == "Events", events[0].tag
            events = [event[0] for event in events[0]]
        with self.changed:
            self.told[mode] += events
            self.changed.notify_all()
        answer = ET.Element(tag("s", "Envelope"))
        header_out = ET.SubElement(answer, tag("s", "Header"))
        ET.SubElement(header_out, tag("wsa", "Action")).text = WSMAN + "/Ack"
        related = header.find("wsa:MessageID", NAMESPACES).text
        ET.SubElement(header_out, tag("wsa", "RelatesTo")).text = related
        ET.SubElement(answer, tag("s", "Body"))
        answer = ET.tostring(answer)
        self.send_response(200)
        self.send_header("Content-Type", "application/soap+xml;charset=UTF-8")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def progress(events):
    """What the events say of jobs: how far each is."""
    found = []
    for event in events:
        assert local(event) == "__InstanceModificationEvent", event.tag
        target = next(child for child in event if local(child) == "TargetInstance")
        found += [int(p.text) for p in target if local(p) == "PercentComplete"]
    return found


sink = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
threading.Thread(target=sink.serve_forever, daemon=True).start()
client = Client("wmi", **json.loads(connection))
for mode in Sink.told:
    request = ET.Element("{%s}Subscribe" % WSE)
    delivery = ET.SubElement(request, "{%s}Delivery" % WSE, Mode="%s/%s" % (WSMAN, mode))
    notify = ET.SubElement(delivery, "{%s}NotifyTo" % WSE)
    url = "http://127.0.0.1:%d/sink" % sink.server_port
    ET.SubElement(notify, tag("wsa", "Address")).text = url
    parameters = ET.SubElement(notify, tag("wsa", "ReferenceParameters"))
    ET.SubElement(parameters, "{urn:test}Mode").text = mode
    ET.SubElement(request, "{%s}Expires" % WSE).text = "PT5M"
    ET.SubElement(request, tag("wsman", "Filter"), Dialect=WQL).text = JOBS
    answer = client.wsman.invoke(WSE + "/Subscribe", WMI + CLUSTER + "/*", request)
    assert answer.find(".//{%s}Identifier" % WSE).text.startswith("uuid:")

[(collection, _)] = client.query(
    "SELECT * FROM Msvm_VirtualSystemCollection WHERE ElementName = '%s'" % wanted)
client.completed(client.invoke(
    "Msvm_CollectionSnapshotService", "CreateSnapshot", Collection=collection,
    SnapshotSettings="", SnapshotType=2))
with Sink.changed:
    def done():
        return all(100 in progress(events) for events in Sink.told.values())
    assert Sink.changed.wait_for(done, 60), Sink.told
for mode, events in Sink.told.items():
    steps = progress(events)
    assert steps == sorted(steps), (mode, steps)
sink.shutdown()
