"""Has the daemon make so many instances and reads them all, as bytes, in one answer
and in pages.

    stress.py URL COUNT SIZE    # prints how many bytes came in the one answer
"""

import http.client
import sys
from urllib.parse import urlsplit

import pywbem
from cim import connect

NAMESPACE, CLASS = "test/TestProvider", "TST_ResponseStressTestCxx"
count, size = map(int, sys.argv[2:])

conn = connect(NAMESPACE)
returned, _ = conn.InvokeMethod(
    "Set", pywbem.CIMClassName(CLASS, namespace=NAMESPACE),
    ResponseCount=pywbem.Uint64(count), Size=pywbem.Uint64(size))
assert returned == 0

# pywbem would hold them all: read by hand.
body = f"""<CIM CIMVERSION="2.0" DTDVERSION="2.0"><MESSAGE ID="1" PROTOCOLVERSION="1.0">
<SIMPLEREQ><IMETHODCALL NAME="EnumerateInstances"><LOCALNAMESPACEPATH>
<NAMESPACE NAME="test"/><NAMESPACE NAME="TestProvider"/></LOCALNAMESPACEPATH>
<IPARAMVALUE NAME="ClassName"><CLASSNAME NAME="{CLASS}"/></IPARAMVALUE>
</IMETHODCALL></SIMPLEREQ></MESSAGE></CIM>"""
http_conn = http.client.HTTPConnection(urlsplit(sys.argv[1]).netloc)
http_conn.request("POST", "/cimom", body, {
    "Content-Type": "application/xml", "CIMOperation": "MethodCall",
    "CIMMethod": "EnumerateInstances", "CIMObject": NAMESPACE})
response = http_conn.getresponse()
assert response.status == 200 and response.getheader("Transfer-Encoding") == "chunked"
found, total, end = 0, 0, b""
while chunk := response.read(1 << 16):
    # What is counted may lie across two chunks.
    joined = end[-9:] + chunk
    found += joined.count(b"<INSTANCE ") - end[-9:].count(b"<INSTANCE ")
    total, end = total + len(chunk), joined
assert found == count, found
assert end.rstrip().endswith(b"</CIM>"), end[-100:]

# Some pages of as many.
result = conn.OpenEnumerateInstances(CLASS, MaxObjectCount=1000, PropertyList=["SequenceNumber"])
pulled = len(result.instances)
while not result.eos:
    result = conn.PullInstancesWithPath(result.context, MaxObjectCount=1000)
    pulled += len(result.instances)
    if pulled >= 10_000 and not result.eos:
        conn.CloseEnumeration(result.context)
        break
assert pulled == min(count, 10_000), pulled
print(total)
