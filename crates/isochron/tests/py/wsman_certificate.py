"""What the owner of a client certificate may do over WS-Management, by role.

    wsman_certificate.py CONNECTION ROLE

CONNECTION is what pypsrp's WSMan takes, as JSON. A collection `shop` is there already.
"""

import json
import sys

from wsman import Client, WSManFaultError

ACCESS_DENIED = 5

client = Client("wmi", **json.loads(sys.argv[1]))
[(shop, _)] = client.query(
    "SELECT * FROM Msvm_VirtualSystemCollection WHERE ElementName = 'shop'")
denied = False
try:
    # Of a type that there is not, so that nothing is made.
    client.invoke("Msvm_CollectionSnapshotService", "CreateSnapshot", Collection=shop,
                  SnapshotSettings="", SnapshotType=77)
except WSManFaultError as error:
    assert error.code == ACCESS_DENIED, error
    denied = True
assert denied == (sys.argv[2] == "reader"), denied
