"""How clients written for Hyper-V call, over CIM-XML: .NET's System.Management, WMI's
scripting objects, and what they have in common.

What they do and this does as they do: in-parameters by their position, taken from the
class; settings as the text of an instance, in either DTD; a job followed by its path
while it is in state 4 and no longer, and anything but 7 taken for failure.
"""

import time
from xml.sax.saxutils import escape, quoteattr

import pywbem
from pywbem import CIMInstance

import cim

STARTING, RUNNING, COMPLETED = 3, 4, 7
STARTED = 4096


class Failed(Exception):
    """A method or its job failed; what the client would show."""

    def __init__(self, code, job=None):
        self.code, self.job = code, job
        super().__init__(code, job and job["ErrorDescription"])


class Wmi:
    """A connection to one namespace, as a ManagementScope is."""

    def __init__(self, namespace=cim.VIRTUALIZATION):
        self.conn = cim.connect(namespace)
        self.classes = {}

    def get(self, path):
        return self.conn.GetInstance(path, LocalOnly=False)

    def of_class(self, classname):
        if classname not in self.classes:
            self.classes[classname] = self.conn.GetClass(
                classname, LocalOnly=False, IncludeQualifiers=True, IncludeClassOrigin=True)
        return self.classes[classname]

    def only(self, classname, **properties):
        """The one instance of the class with these values."""
        found = [i for i in self.conn.EnumerateInstances(classname, LocalOnly=False)
                 if all(i[name] == value for name, value in properties.items())]
        assert len(found) == 1, (classname, properties, found)
        return found[0]

    def related(self, path, classname, association=None, role=None):
        """GetRelated(classname, association, ..., role)."""
        return self.conn.Associators(
            path, AssocClass=association, ResultClass=classname, ResultRole=role)

    def settings(self, path):
        """The settings in force of a machine."""
        [found] = self.related(
            path, "Msvm_VirtualSystemSettingData", "Msvm_SettingsDefineState")
        return self.get(found.path)

    # Methods

    def call(self, path, method, *values):
        """ExecMethod with in-parameters in the order in which the class declares them;
        those after the last given are null, and are sent as such."""
        declared = self.of_class(path.classname).methods[method].parameters.values()
        names = [p for p in declared if "In" not in p.qualifiers or p.qualifiers["In"].value]
        assert len(values) <= len(names), (method, names)
        values = list(values) + [None] * (len(names) - len(values))
        given = [pywbem.CIMParameter(p.name, p.type, is_array=p.is_array, value=value,
                                     reference_class=p.reference_class)
                 for p, value in zip(names, values)]
        return self.conn.InvokeMethod(method, path, Params=given)

    def wait(self, out, interval=0.1):
        """Follows the job as clients do; the job when it completed, else Failed."""
        path = out["Job"]
        while True:
            job = self.get(path)
            if job["JobState"] != RUNNING:
                break
            time.sleep(interval)
        if job["JobState"] != COMPLETED:
            raise Failed(job["ErrorCode"], job)
        return job

    def done(self, path, method, *values):
        """Calls and, if that started a job, waits; the out-parameters and the job."""
        code, out = self.call(path, method, *values)
        if code == STARTED:
            return out, self.wait(out)
        if code:
            raise Failed(code, out.get("Job") and self.get(out["Job"]))
        return out, None

    # Settings as text

    def new(self, classname, **properties):
        """CreateInstance: every property of the class, null but for those given."""
        instance = CIMInstance(classname)
        for name, declared in self.of_class(classname).properties.items():
            instance[name] = pywbem.CIMProperty(
                name, properties.pop(name, None), type=declared.type,
                is_array=declared.is_array)
        assert not properties, properties
        return instance

    def text(self, instance, dtd):
        """GetText: 1 is CIM DTD 2.0, 2 is WMI DTD 2.0."""
        declared = self.of_class(instance.classname)
        parts = [f"<INSTANCE CLASSNAME={quoteattr(instance.classname)}>"]
        parts.append('<QUALIFIER NAME="dynamic" PROPAGATED="true" TYPE="boolean" '
                     'TOSUBCLASS="false"><VALUE>TRUE</VALUE></QUALIFIER>')
        if dtd == 2:
            parts.append(self.system_properties(instance))
        for name, prop in instance.properties.items():
            parts.append(self.property(name, prop, declared.properties[name], dtd))
        return "\n".join(parts) + "\n</INSTANCE>"

    def system_properties(self, instance):
        """What WMI adds to every instance in its own DTD."""
        single = [("__PATH", "string", None), ("__NAMESPACE", "string", r"root\virtualization\v2"),
                  ("__SERVER", "string", "HOST"), ("__GENUS", "sint32", "2"),
                  ("__CLASS", "string", instance.classname),
                  ("__PROPERTY_COUNT", "sint32", str(len(instance.properties)))]
        parts = [f'<PROPERTY NAME="{name}" CLASSORIGIN="___SYSTEM" TYPE="{kind}">'
                 + (f"<VALUE>{escape(value)}</VALUE>" if value else "") + "</PROPERTY>"
                 for name, kind, value in single]
        parts.append('<PROPERTY.ARRAY NAME="__DERIVATION" CLASSORIGIN="___SYSTEM" TYPE="string">'
                     "<VALUE.ARRAY><VALUE>CIM_SettingData</VALUE><VALUE>CIM_ManagedElement</VALUE>"
                     "</VALUE.ARRAY></PROPERTY.ARRAY>")
        return "\n".join(parts)

    @staticmethod
    def property(name, prop, declared, dtd):
        """One property, with a qualifier; a null one has no value."""
        kind = "PROPERTY.ARRAY" if prop.is_array else "PROPERTY"
        origin = quoteattr(declared.class_origin)
        begin = f'<{kind} NAME="{name}" CLASSORIGIN={origin} TYPE="{prop.type}">'
        if dtd == 2:
            begin += (f'<QUALIFIER NAME="CIMTYPE" PROPAGATED="true" TYPE="string" '
                      f'TOINSTANCE="true"><VALUE>{prop.type}</VALUE></QUALIFIER>')

        def value(one):
            if isinstance(one, bool):
                one = "TRUE" if one else "FALSE"
            return f"<VALUE>{escape(str(one))}</VALUE>"
        inner = ""
        if prop.value is not None:
            inner = value(prop.value) if not prop.is_array else (
                "<VALUE.ARRAY>" + "".join(map(value, prop.value)) + "</VALUE.ARRAY>")
        return f"{begin}{inner}</{kind}>"
