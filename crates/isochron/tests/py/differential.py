"""The same questions asked of the daemon and of pywbem_mock, which has been given the
daemon's MOF and the instances read from it: answers have to be equal.

    differential.py URL NAMESPACE NAMESPACE=MOF...

It is asked about the first; MOF is what `isochron schema NAMESPACE` prints, of it and of
those that its associations lead to. Where answers differ, the reason is in
REASONS, with what takes such differences out; any other is an error. Prints how many
questions were asked and how often each reason was needed.
"""

import collections
import pickle
import sys
import warnings

import pywbem
import pywbem_mock
from pywbem import CIMClass, CIMClassName, CIMInstance, CIMInstanceName, CIMQualifierDeclaration

import cim

NAMESPACE = sys.argv[2]
NOBODY = "Msvm_Nobody"

# Answers made comparable


def plain_path(path):
    """A path without host: some answers have one."""
    if path is None:
        return None
    path = path.copy()
    path.host = None
    for name, value in path.keybindings.items():
        if isinstance(value, CIMInstanceName):
            path[name] = plain_path(value)
    return path.to_wbem_uri("canonical")


def plain_value(value):
    if isinstance(value, CIMInstanceName):
        return plain_path(value)
    if isinstance(value, (CIMInstance, CIMClass)):
        return plain(value)
    if isinstance(value, list):
        return [plain_value(item) for item in value]
    return str(value) if isinstance(value, (pywbem.CIMDateTime, pywbem.CIMType)) else value


SCOPES = {"CLASS", "ASSOCIATION", "INDICATION", "PROPERTY", "REFERENCE", "METHOD", "PARAMETER"}


def qualifiers(of):
    # What is not said of a qualifier has the value that DSP0201 gives it.
    return {name.lower(): (q.type, plain_value(q.value), bool(q.propagated),
                           q.overridable is not False, q.tosubclass is not False,
                           bool(q.translatable))
            for name, q in of.qualifiers.items()}


def properties(of):
    return {name.lower(): (name, p.type, p.is_array, plain_value(p.value), p.embedded_object,
                           p.reference_class, p.class_origin, p.propagated, qualifiers(p))
            for name, p in of.properties.items()}


def plain(answer):
    """An answer as something that compares, independent of order where none is promised."""
    if isinstance(answer, CIMInstance):
        return ("instance", answer.classname, plain_path(answer.path), properties(answer))
    if isinstance(answer, CIMInstanceName):
        return ("path", plain_path(answer))
    if isinstance(answer, CIMClassName):
        return ("class path", answer.classname, answer.namespace)
    if isinstance(answer, CIMClass):
        methods = {name.lower(): (name, m.return_type, m.class_origin, m.propagated, qualifiers(m),
                                  [(p.name, p.type, p.is_array, p.reference_class, qualifiers(p))
                                   for p in m.parameters.values()])
                   for name, m in answer.methods.items()}
        return ("class", answer.classname, answer.superclass, qualifiers(answer),
                properties(answer), methods)
    if isinstance(answer, CIMQualifierDeclaration):
        scopes = {scope.upper() for scope, is_in in answer.scopes.items() if is_in}
        return ("qualifier type", answer.name, answer.type, answer.is_array, answer.value,
                sorted(SCOPES if "ANY" in scopes else scopes), answer.overridable is not False,
                answer.tosubclass is not False, bool(answer.translatable))
    if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], CIMClassName):
        return (plain(answer[0]), plain(answer[1]))  # class-level associators
    if isinstance(answer, (list, tuple)):
        return sorted((plain(item) for item in answer), key=repr)
    return answer


def ask(conn, question):
    try:
        return plain(question(conn))
    except pywbem.CIMError as error:
        return ("error", error.status_code)


# The two who are asked

def copied(value):
    """What deepcopy makes, sooner: the mock copies every class and instance that it looks at,
    for minutes. Of an instance it changes only what a plain copy does not share."""
    return value.copy() if isinstance(value, CIMInstance) else pickle.loads(pickle.dumps(value))


pywbem_mock._inmemoryrepository.deepcopy = copied
real = cim.connect(NAMESPACE)
given = dict(argument.split("=", 1) for argument in sys.argv[3:])
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    mock = pywbem_mock.FakedWBEMConnection(default_namespace=NAMESPACE)
    for namespace, mof in given.items():
        if namespace != NAMESPACE:
            mock.add_namespace(namespace)
        with open(mof, encoding="utf-8") as file:
            mock.compile_mof_string(file.read(), namespace=namespace)


def read(namespace):
    """All classes of a namespace, and all instances."""
    classes = real.EnumerateClasses(namespace=namespace, DeepInheritance=True, LocalOnly=False,
                                    IncludeQualifiers=True)
    instances = []
    for cls in classes:
        for instance in real.EnumerateInstances(cls.classname, namespace, LocalOnly=False):
            if instance.classname == cls.classname:
                instance.path.host = None
                instances.append(instance)
    mock.add_cimobjects(instances, namespace=namespace)
    return classes, instances


for namespace in given:
    if namespace != NAMESPACE:
        read(namespace)
classes, instances = read(NAMESPACE)
associations = [c.classname for c in classes if "Association" in c.qualifiers]
objects = [i for i in instances if i.classname not in associations]


# The questions

def some(things):
    """At most two of each class: a third is asked about as the others are."""
    seen = collections.Counter()
    for thing in things:
        seen[thing.classname] += 1
        if seen[thing.classname] <= 2:
            yield thing


def questions():
    """All of them, as (what, question)."""
    yield from about_classes()
    yield from about_instances()
    yield from about_associations()


FLAGS = [{}, {"LocalOnly": True}, {"LocalOnly": False, "IncludeQualifiers": False},
         {"LocalOnly": False, "IncludeClassOrigin": True}]


def about_classes():
    names = [None, NOBODY] + [c.classname for c in classes]
    for deep in (True, False):
        for name in names:
            yield f"EnumerateClassNames {name} {deep}", lambda conn: conn.EnumerateClassNames(
                ClassName=name, DeepInheritance=deep)
            yield f"EnumerateClasses {name} {deep}", lambda conn: conn.EnumerateClasses(
                ClassName=name, DeepInheritance=deep, LocalOnly=False, IncludeClassOrigin=True)
    for name in names[1:]:
        for flags in FLAGS + [{"PropertyList": []}, {"PropertyList": ["elementname", "Nothing"]}]:
            yield f"GetClass {name} {flags}", lambda conn: conn.GetClass(name, **flags)
    for name in [q.name for q in real.EnumerateQualifiers()] + ["Nothing"]:
        yield f"GetQualifier {name}", lambda conn: conn.GetQualifier(name)
    yield "EnumerateQualifiers", lambda conn: conn.EnumerateQualifiers()
    for call in ("EnumerateClassNames", "EnumerateClasses", "EnumerateQualifiers"):
        yield f"{call} elsewhere", lambda conn: getattr(conn, call)(namespace="root/elsewhere")


LISTS = [None, [], ["ElementName", "Name"], ["elementname", "Nothing"]]


def about_instances():
    for name in [NOBODY] + [c.classname for c in classes]:
        yield f"EnumerateInstanceNames {name}", lambda conn: conn.EnumerateInstanceNames(name)
        for deep in (True, False):
            yield f"EnumerateInstances {name} {deep}", lambda conn: conn.EnumerateInstances(
                name, DeepInheritance=deep, LocalOnly=False)
        for wanted in LISTS[1:]:
            yield f"EnumerateInstances {name} {wanted}", lambda conn: conn.EnumerateInstances(
                name, LocalOnly=False, PropertyList=wanted)
        yield f"OpenEnumerateInstances {name}", lambda conn: conn.OpenEnumerateInstances(
            name, MaxObjectCount=1000).instances
        yield f"OpenEnumerateInstancePaths {name}", lambda conn: conn.OpenEnumerateInstancePaths(
            name, MaxObjectCount=1000).paths
    for instance in some(instances):
        for wanted in LISTS:
            yield f"GetInstance {instance.path} {wanted}", lambda conn: conn.GetInstance(
                instance.path, LocalOnly=False, PropertyList=wanted)
    for path in wrong_paths():
        yield f"GetInstance {path}", lambda conn: conn.GetInstance(path)
        yield f"DeleteInstance {path}", lambda conn: conn.DeleteInstance(path)
    for call in ("EnumerateInstances", "EnumerateInstanceNames"):
        yield f"{call} elsewhere", lambda conn: getattr(conn, call)(
            "CIM_Service", namespace="root/elsewhere")


def wrong_paths():
    """What is not there: instance, class, namespace."""
    there = next(i.path for i in objects if i.classname not in ("CIM_Namespace",))
    path = there.copy()
    path[next(iter(path.keybindings))] = "nobody"
    yield path
    path = there.copy()
    path.classname = NOBODY
    yield path
    path = there.copy()
    path.namespace = "root/elsewhere"
    yield path


def about_associations():
    calls = [("Associators", True), ("AssociatorNames", True), ("References", False),
             ("ReferenceNames", False)]
    roles = {(cls.classname): [p.name for p in cls.properties.values() if p.type == "reference"]
             for cls in classes if cls.classname in associations}
    linked = collections.defaultdict(set)
    for link in instances:
        for prop in link.properties.values():
            if prop.type == "reference":
                linked[plain_path(prop.value)].add(link.classname)
    sources = [o.path for o in some(objects)] + list(wrong_paths())
    for source in sources:
        near = sorted(linked[plain_path(source)])
        for call, far in calls:
            by = "AssocClass" if far else "ResultClass"
            for name in [None, NOBODY, "CIM_Dependency", *near]:
                yield f"{call} {source} {name}", lambda conn: getattr(conn, call)(
                    source, **{by: name})
                for role in roles.get(name, ["Nothing"]):
                    yield f"{call} {source} {name} {role}", lambda conn: getattr(conn, call)(
                        source, Role=role, **{by: name})
                    if far:
                        yield (f"{call} {source} {name} to {role}",
                               lambda conn: getattr(conn, call)(
                                   source, ResultRole=role, **{by: name}))
            if far:
                for result in ("CIM_ManagedElement", "CIM_LogicalElement", NOBODY,
                               source.classname):
                    yield f"{call} {source} {result}", lambda conn: getattr(conn, call)(
                        source, ResultClass=result)
    for name in [c.classname for c in classes] + [NOBODY]:
        for call, _ in calls:
            yield f"class {call} {name}", lambda conn: getattr(conn, call)(
                CIMClassName(name, namespace=NAMESPACE),
                **({} if call.endswith("Names") else {"IncludeQualifiers": True}))


# Differences

# Why an answer differs: by a name, what says whether a difference is of that kind.
def elements(answer, change, parameters=lambda found: found):
    """The answer with every qualifier, property and method of its classes changed."""
    if isinstance(answer, list):
        return [elements(item, change, parameters) for item in answer]
    if not isinstance(answer, tuple) or not answer:
        return answer
    if answer[0] != "class":
        return tuple(elements(item, change, parameters) for item in answer)
    kind, name, superclass, quals, props, methods = answer

    def all_of(things, of):
        changed = {key: change(of, thing) for key, thing in things.items()}
        return {key: thing for key, thing in changed.items() if thing is not None}
    props = {key: (*p[:-1], all_of(p[-1], "qualifier")) for key, p in props.items()}
    methods = {key: (*m[:4], all_of(m[4], "qualifier"),
                     [(*p[:-1], parameters(all_of(p[-1], "qualifier"))) for p in m[5]])
               for key, m in methods.items()}
    return (kind, name, superclass, all_of(quals, "qualifier"), all_of(props, "property"),
            all_of(methods, "method"))


def without_qualifiers(which):
    """Takes away the qualifiers of which this holds: by name, and what is said of them."""
    return lambda of, found: None if of == "qualifier" and which(found) else found


def is_local(what):
    """Whether only what a class declares itself is asked for: by default, so."""
    return what.startswith("GetClass") and "'LocalOnly': False" not in what


def overriding(of, found):
    """Without what overrides."""
    quals = {"property": 8, "method": 4}.get(of)
    return None if quals and "override" in found[quals] else found


def propagated(of, found):
    """Without saying what is inherited, of properties, methods and Override."""
    at = {"property": 7, "method": 3}.get(of)
    return found if at is None else (*found[:at], None, *found[at + 1:])


def origin(of, found):
    at = {"property": 6, "method": 2}.get(of)
    return found if at is None else (*found[:at], None, *found[at + 1:])


def embedded(of, found):
    return (*found[:4], None, *found[5:]) if of == "property" else found


def inherited(found):
    """A parameter's qualifiers, without whether they are inherited."""
    return {name: (*q[:2], None, *q[3:]) for name, q in found.items()}


def of_class(what, answer):
    """Without qualifiers that a class has from its superclass."""
    if isinstance(answer, list):
        return [of_class(what, item) for item in answer]
    if isinstance(answer, tuple) and answer and answer[0] == "class":
        own = {name: q for name, q in answer[3].items() if not q[2]}
        return (*answer[:3], own, *answer[4:])
    return answer


def names_only(what, answer):
    """Of associated classes, their names."""
    if what.startswith(("class Associators", "class References")) and isinstance(answer, list):
        return [item[0] if isinstance(item[0], tuple) else item for item in answer]
    return answer


def above(name):
    """A class and those that it derives from."""
    parents = {c.classname: c.superclass for c in classes}
    while name:
        yield name
        name = parents.get(name)


def not_itself(what, answer):
    """Of the classes associated with a class, without it and those above it."""
    if what.startswith("class Associator") and isinstance(answer, list):
        own = set(above(what.split()[2]))
        paths = (item[0] if isinstance(item[0], tuple) else item for item in answer)
        return [item for item, path in zip(answer, paths) if path[1] not in own]
    return answer


NOT_FOUND, NOT_SUPPORTED = ("error", 6), ("error", 7)


def nothing_there(what, answer):
    operations = ("Associator", "Reference")
    return [] if what.startswith(operations) and answer == NOT_FOUND else answer


def not_deleted(what, answer):
    return NOT_SUPPORTED if what.startswith("DeleteInstance") and answer[0] == "error" else answer


# Why answers differ, and what takes that out of both.
REASONS = {
    "DSP0200 lets a server say that the source of an association is not there":
        nothing_there,
    "instances are deleted by methods, so deleting one is not supported, whichever it is":
        not_deleted,
    "with LocalOnly, the mock leaves out what overrides (DSP0200 §5.4.2.1: defined or overridden)":
        lambda what, a: elements(a, overriding) if is_local(what) else a,
    "the mock hands Restricted qualifiers down (DSP0004 §5.6.1.2)":
        lambda what, a: elements(a, without_qualifiers(lambda q: q[2] and not q[4])),
    "the mock takes what overrides for inherited (DSP0201, PROPAGATED)":
        lambda what, a: elements(elements(a, propagated), without_qualifiers(
            lambda q: isinstance(q[1], str) and q[1] in ALL_NAMES)),
    "the mock does not say that a parameter's qualifiers are inherited":
        lambda what, a: elements(a, lambda _, found: found, inherited),
    "the mock hands no qualifiers of classes down (DSP0004 §5.6.1.2)":
        of_class,
    "the mock has no class origin in enumerations":
        lambda what, a: elements(a, origin) if what.startswith("EnumerateClasses") else a,
    "the mock says what is an embedded instance only with its qualifier":
        lambda what, a: elements(a, embedded),
    "the mock leaves out of associated classes what they inherit":
        names_only,
    "the mock takes the source's own end of an association for the other":
        not_itself,
}
# Of an Override qualifier, the value is the name of an element.
ALL_NAMES = {name for c in classes for name in (*c.properties, *c.methods)}



def different(one, other, where=""):
    """The places at which two answers differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(set(one) | set(other)):
            if one.get(key) != other.get(key):
                yield from different(one.get(key), other.get(key), f"{where} {key}")
    elif isinstance(one, (list, tuple)) and type(one) is type(other) and len(one) == len(other):
        for place, (left, right) in enumerate(zip(one, other)):
            if left != right:
                yield from different(left, right, f"{where} {place}")
    else:
        yield f"{where}: {str(one)[:200]} here, {str(other)[:200]} the mock"


def without(what, answers, skipped=None):
    """Both answers, with everything taken out that there is a reason for, but one."""
    for reason, take_out in REASONS.items():
        if reason != skipped:
            answers = [take_out(what, answer) for answer in answers]
    return answers


asked, needed, unknown = 0, dict.fromkeys(REASONS, 0), []
for what, question in questions():
    asked += 1
    answers = [ask(real, question), ask(mock, question)]
    if answers[0] == answers[1]:
        continue
    ours, theirs = without(what, answers)
    if ours != theirs:
        unknown.append("\n  ".join([what, *different(ours, theirs)]))
    for reason in REASONS:
        ours, theirs = without(what, answers, reason)
        needed[reason] += ours != theirs
assert not unknown, "\n".join(unknown[:20])
cim.print_result({"asked": asked, "needed": needed})
