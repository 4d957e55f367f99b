"""Makes a namespace root/cimv2 like that of a general CIM server, from the DMTF's
own MOF: its qualifier types, some of its classes, and one computer system.

    cimv2.py URL SCHEMA.zip DIRECTORY    # DIRECTORY is for the unpacked schema
"""

import os
import sys
import zipfile

import pywbem
from cim import connect

NAMESPACE = "root/cimv2"
CLASSES = [
    "CIM_ComputerSystem",
    "CIM_ConcreteCollection",
    "CIM_MemberOfCollection",
    "CIM_Person",
    "CIM_RunningOS",
]

archive, directory = sys.argv[2:]
with zipfile.ZipFile(archive) as schema:
    schema.extractall(directory)
files = {
    name.removesuffix(".mof"): os.path.join(path, name)
    for path, _, names in os.walk(directory) for name in names}

conn = connect(NAMESPACE)
pywbem.WBEMServer(conn).create_namespace(NAMESPACE)
# What a class refers to is compiled before it, as the server asks for it.
compiler = pywbem.MOFCompiler(handle=conn, search_paths=[directory])
for name in ["qualifiers", "qualifiers_optional", *CLASSES]:
    compiler.compile_file(files[name], NAMESPACE)

host = {"CreationClassName": "CIM_ComputerSystem", "Name": "host"}
conn.CreateInstance(pywbem.CIMInstance("CIM_ComputerSystem", host))
