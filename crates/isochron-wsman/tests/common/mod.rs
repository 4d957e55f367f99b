//! A small CIM server for the tests: classes from MOF, instances in memory, an
//! association, and methods with every kind of parameter.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use isochron_cim::query::Query;
use isochron_cim::{
    AssociationFilter, CimError, CimServer, CimType, Class, ClassQuery, EventStream, Instance,
    InstanceStream, Invocation, MethodTarget, Name, ObjectPath, Outcome, QualifierDecl, Repository,
    RequestContext, Status, TypedValue, Value,
};
use isochron_wsman::{Config, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

pub mod eventing;
pub mod ntlm;
pub mod sink;

pub const NAMESPACE: &str = "root/test/v2";
pub const WMI: &str = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/test/v2";
pub const DMTF: &str = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2";
pub const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";
pub const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration";

const MOF: &str = r#"
Qualifier Key : boolean = false, Scope(property, reference), Flavor(DisableOverride);
Qualifier In : boolean = true, Scope(parameter);
Qualifier Out : boolean = false, Scope(parameter);
Qualifier Static : boolean = false, Scope(method);
Qualifier Association : boolean = false, Scope(association);
Qualifier EmbeddedInstance : string = null, Scope(property, parameter);
Qualifier Description : string = null, Scope(any);

[Description("What all share")]
class T_Base {
  [Key] string Name;
  string Caption;
};
class T_Thing : T_Base {
  uint64 Size;
  sint64 Delta;
  real64 Ratio;
  char16 Letter;
  boolean On;
  datetime When;
  datetime Length;
  string Tags[];
  [EmbeddedInstance("T_Settings")] string Settings;
  uint32 Work(
    [In] T_Thing REF Other,
    [In, EmbeddedInstance("T_Settings")] string Settings,
    [In] uint16 Numbers[],
    [In, Out] datetime At,
    [In, Out] boolean Flag,
    [In(false), Out] T_Thing REF Job,
    [In(false), Out] string Said);
  [Static] uint32 Add([In] uint32 A, [In] uint32 B);
  uint32 Slow();
};
class T_BigThing : T_Thing {
  uint8 Extra;
};
class T_Many {
  [Key] string Name;
};
class T_Only {
  [Key] uint32 Number;
  uint32 Count([In(false), Out] uint32 Counted);
};
class T_Settings {
  uint16 Level;
  string Text;
};
[Association]
class T_Link {
  [Key] T_Thing REF Antecedent;
  [Key] T_BigThing REF Dependent;
};
"#;

/// A text that a codec can get wrong in every way.
pub const AWKWARD: &str = "a<b>&\"c\" 'd' \u{e9}\u{1f600} ]]> \ttab\nline\r\nend  ";

pub fn path(class: &str, name: &str) -> ObjectPath {
    ObjectPath::class(class)
        .with_key("Name", name)
        .in_namespace(NAMESPACE)
}

pub struct TestServer {
    schema: Repository,
    pub instances: Mutex<Vec<Instance>>,
    /// How many operations came as far as here.
    pub reached: AtomicUsize,
    /// How many instances of T_Many there are.
    pub many: usize,
    happened: tokio::sync::broadcast::Sender<(String, Instance)>,
}

impl TestServer {
    pub fn new() -> Self {
        let schema = Repository::from_mof(&[("test.mof", MOF)]).unwrap();
        let mut settings = Instance::new("T_Settings");
        settings.set("Level", 3u16).set("Text", AWKWARD);
        let mut one = Instance::new("T_Thing");
        one.path = Some(path("T_Thing", "one"));
        let datetime = |text: &str| CimType::DateTime.parse(text).unwrap();
        one.set("Name", "one")
            .set("Caption", AWKWARD)
            .set("Size", u64::MAX)
            .set("Delta", Value::Sint64(i64::MIN))
            .set("Ratio", Value::Real64(f64::INFINITY))
            .set("Letter", Value::Char16(0x20ac))
            .set("On", true)
            .set("When", datetime("20260102030405.123456+060"))
            .set("Length", datetime("00000001020304.000005:000"))
            .set("Tags", vec!["x", "y"])
            .set("Settings", settings);
        let mut two = Instance::new("T_BigThing");
        two.path = Some(path("T_BigThing", "two \"<&>"));
        two.set("Name", "two \"<&>")
            .set("Size", 7u64)
            .set("Extra", Value::Uint8(1));
        two.set("Caption", "bell\u{7}");
        let null = isochron_cim::Property {
            value: TypedValue {
                ty: CimType::Boolean,
                is_array: false,
                value: None,
            },
            embedded: None,
            class_origin: None,
        };
        two.properties.insert("On".into(), null);
        let mut link = Instance::new("T_Link");
        let ends = [
            ("Antecedent", path("T_Thing", "one")),
            ("Dependent", path("T_BigThing", "two \"<&>")),
        ];
        let mut link_path = ObjectPath::class("T_Link").in_namespace(NAMESPACE);
        for (role, end) in ends {
            link_path = link_path.with_key(role, end.clone());
            link.set(role, end);
        }
        link.path = Some(link_path);
        let mut only = Instance::new("T_Only");
        only.set("Number", 5u32);
        let only_path = ObjectPath::class("T_Only").with_key("Number", 5u32);
        only.path = Some(only_path.in_namespace(NAMESPACE));
        Self {
            schema,
            instances: Mutex::new(vec![one, two, link, only]),
            reached: AtomicUsize::new(0),
            many: 25,
            happened: tokio::sync::broadcast::channel(16).0,
        }
    }

    /// Tells those who are subscribed to a class of an event.
    pub fn happens(&self, class: &str, event: Instance) {
        let _ = self.happened.send((class.to_owned(), event));
    }

    fn came(&self, cx: &RequestContext) -> Result<(), CimError> {
        self.reached.fetch_add(1, Ordering::SeqCst);
        match cx.namespace.eq_ignore_ascii_case(NAMESPACE) {
            true => Ok(()),
            false => Err(CimError::new(Status::InvalidNamespace, "no such namespace")),
        }
    }

    fn all(&self) -> Vec<Instance> {
        let mut all = self.instances.lock().unwrap().clone();
        for number in 0..self.many {
            let name = format!("{number:0>900}");
            let mut instance = Instance::new("T_Many");
            instance.path = Some(path("T_Many", &name));
            instance.set("Name", name);
            all.push(instance);
        }
        all
    }

    fn of_class(&self, class: &Name) -> Result<Vec<Instance>, CimError> {
        self.schema.class(class)?;
        let mut all = self.all();
        all.retain(|instance| self.schema.is_a(&instance.class, class));
        Ok(all)
    }

    fn find(&self, path: &ObjectPath) -> Result<Instance, CimError> {
        let found = self.of_class(&path.class)?.into_iter();
        let same = |i: &Instance| i.path.as_ref().unwrap().keys_equal(path);
        let mut found = found.filter(same);
        found
            .next()
            .ok_or_else(|| CimError::not_found(format!("there is no {path}")))
    }
}

trait KeysEqual {
    fn keys_equal(&self, other: &Self) -> bool;
}

impl KeysEqual for ObjectPath {
    fn keys_equal(&self, other: &Self) -> bool {
        let bare = |path: &Self| {
            let mut path = path.relative();
            path.class = Name::from("X");
            path
        };
        bare(self) == bare(other)
    }
}

#[async_trait]
impl CimServer for TestServer {
    fn namespaces(&self) -> Vec<String> {
        vec![NAMESPACE.into()]
    }

    async fn get_class(&self, cx: &RequestContext, class: &Name) -> Result<Class, CimError> {
        self.came(cx)?;
        let found = self.schema.class(class).cloned();
        found.map_err(|error| CimError::not_found(error.message))
    }

    async fn enumerate_classes(
        &self,
        cx: &RequestContext,
        query: &ClassQuery,
    ) -> Result<Vec<Class>, CimError> {
        self.came(cx)?;
        Ok(match &query.below {
            None => self.schema.classes().cloned().collect(),
            Some(above) => {
                let below = self.schema.subclasses(above, query.deep).into_iter();
                below.map(|c| self.schema.get(c).unwrap().clone()).collect()
            }
        })
    }

    async fn get_qualifier(
        &self,
        _cx: &RequestContext,
        name: &Name,
    ) -> Result<QualifierDecl, CimError> {
        Err(CimError::not_found(name))
    }

    async fn enumerate_qualifiers(
        &self,
        _cx: &RequestContext,
    ) -> Result<Vec<QualifierDecl>, CimError> {
        Ok(Vec::new())
    }

    async fn events(
        &self,
        cx: &RequestContext,
        language: &str,
        query: &str,
    ) -> Result<EventStream, CimError> {
        self.came(cx)?;
        let Query::Select(select) = Query::parse(language, query)? else {
            return Err(CimError::new(Status::InvalidQuery, "no selection"));
        };
        let told = self.happened.subscribe();
        let events = futures::stream::unfold(told, |mut told| async move {
            told.recv().await.ok().map(|event| (event, told))
        });
        let wanted = move |(class, event): (String, Instance)| {
            std::future::ready(select.class.is(&class).then_some(event))
        };
        Ok(events.filter_map(wanted).boxed())
    }

    async fn get_instance(
        &self,
        cx: &RequestContext,
        path: &ObjectPath,
    ) -> Result<Instance, CimError> {
        self.came(cx)?;
        self.find(path)
    }

    async fn enumerate_instances(
        &self,
        cx: &RequestContext,
        class: &Name,
    ) -> Result<InstanceStream, CimError> {
        self.came(cx)?;
        let found = self.of_class(class)?;
        Ok(futures::stream::iter(found.into_iter().map(Ok)).boxed())
    }

    async fn associators(
        &self,
        cx: &RequestContext,
        source: &ObjectPath,
        _filter: &AssociationFilter,
    ) -> Result<InstanceStream, CimError> {
        self.came(cx)?;
        self.find(source)?;
        let other = match source.class.is("T_Thing") {
            true => path("T_BigThing", "two \"<&>"),
            false => path("T_Thing", "one"),
        };
        let found = self.find(&other)?;
        Ok(futures::stream::iter([Ok(found)]).boxed())
    }

    async fn references(
        &self,
        cx: &RequestContext,
        source: &ObjectPath,
        _filter: &AssociationFilter,
    ) -> Result<InstanceStream, CimError> {
        self.came(cx)?;
        self.find(source)?;
        let found = self.of_class(&"T_Link".into())?;
        Ok(futures::stream::iter(found.into_iter().map(Ok)).boxed())
    }

    async fn create_instance(
        &self,
        cx: &RequestContext,
        mut instance: Instance,
    ) -> Result<ObjectPath, CimError> {
        self.came(cx)?;
        let mut path = ObjectPath::class(instance.class.clone()).in_namespace(NAMESPACE);
        for key in self.schema.key_names(&instance.class) {
            let value = instance.get(key.as_str()).cloned();
            let value = value.ok_or_else(|| CimError::invalid_parameter("a key is missing"))?;
            path = path.with_key(key.clone(), value);
        }
        if self.find(&path).is_ok() {
            return Err(CimError::new(Status::AlreadyExists, "it is there"));
        }
        instance.path = Some(path.clone());
        self.instances.lock().unwrap().push(instance);
        Ok(path)
    }

    async fn modify_instance(
        &self,
        cx: &RequestContext,
        path: &ObjectPath,
        changes: Instance,
    ) -> Result<(), CimError> {
        self.came(cx)?;
        let mut instances = self.instances.lock().unwrap();
        let mut instances = instances.iter_mut();
        let found = instances.find(|i| i.path.as_ref().unwrap().keys_equal(path));
        let found = found.ok_or_else(|| CimError::not_found(path))?;
        found.properties.extend(changes.properties);
        Ok(())
    }

    async fn delete_instance(
        &self,
        cx: &RequestContext,
        path: &ObjectPath,
    ) -> Result<(), CimError> {
        self.came(cx)?;
        cx.principal.require(isochron_cim::Role::Administrator)?;
        self.find(path)?;
        let mut instances = self.instances.lock().unwrap();
        instances.retain(|i| !i.path.as_ref().unwrap().keys_equal(path));
        Ok(())
    }

    async fn invoke_method(
        &self,
        cx: &RequestContext,
        call: Invocation,
    ) -> Result<Outcome, CimError> {
        self.came(cx)?;
        let typed = |ty: CimType, value: Value| TypedValue {
            ty,
            is_array: false,
            value: Some(value),
        };
        let number = |value: u32| typed(CimType::Uint32, Value::Uint32(value));
        let get = |name: &'static str| call.parameters.get(&Name::fixed(name));
        let mut outcome = Outcome {
            return_value: number(0),
            parameters: Default::default(),
        };
        match (call.method.as_str(), &call.target) {
            ("Add", MethodTarget::Class(_)) => {
                let of = |name| get(name).unwrap().value.as_ref().unwrap().as_u64().unwrap();
                outcome.return_value = number(u32::try_from(of("A") + of("B")).unwrap());
            }
            ("Slow", MethodTarget::Instance(_)) => {
                tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
            }
            ("Count", MethodTarget::Instance(_)) => {
                outcome.parameters.insert("Counted".into(), number(1));
            }
            ("Work", MethodTarget::Instance(on)) => {
                self.find(on)?;
                let said = call.parameters.iter();
                let said: Vec<String> = said
                    .map(|(name, v)| format!("{name}={}", debug(v.value.as_ref())))
                    .collect();
                let said = typed(CimType::String, Value::String(said.join(";")));
                let job = typed(CimType::Reference(None), path("T_Thing", "one").into());
                outcome.return_value = number(4096);
                for name in ["At", "Flag"] {
                    if let Some(value) = get(name) {
                        outcome.parameters.insert(name.into(), value.clone());
                    }
                }
                outcome.parameters.insert("Job".into(), job);
                outcome.parameters.insert("Said".into(), said);
            }
            other => panic!("{other:?}"),
        }
        Ok(outcome)
    }
}

fn debug(value: Option<&Value>) -> String {
    match value {
        None => "null".into(),
        Some(Value::Reference(path)) => path.to_string(),
        Some(Value::Instance(instance)) => {
            let properties = instance.properties.iter();
            let properties: Vec<String> = properties
                .map(|(name, p)| format!("{name}={}", debug(p.value.value.as_ref())))
                .collect();
            format!("{}{{{}}}", instance.class, properties.join(","))
        }
        Some(Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(|i| debug(i.as_ref())).collect();
            format!("[{}]", items.join(","))
        }
        Some(Value::String(text)) => text.clone(),
        Some(Value::DateTime(value)) => value.to_string(),
        Some(Value::Boolean(value)) => value.to_string(),
        Some(value) => value.as_integer().unwrap().to_string(),
    }
}

/// A server of ours over a [`TestServer`].
pub struct Running {
    pub address: SocketAddr,
    pub server: Arc<TestServer>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    pub async fn start(config: Config) -> Self {
        let bound = Server::bind("127.0.0.1:0", config).await.unwrap();
        Self::serve(bound).await
    }

    pub async fn serve(bound: Server) -> Self {
        let address = bound.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = Arc::new(TestServer::new());
        let served = server.clone();
        let task = tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or_default() };
            bound.serve(served, stopped).await.unwrap();
        });
        Self {
            address,
            server,
            stop,
            task,
        }
    }

    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }

    /// Sends bytes on a connection of their own; what comes back until it is closed.
    pub async fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.ok();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.ok();
        response
    }

    /// Posts a body with headers; status, head and body of the response.
    pub async fn post(&self, path: &str, headers: &[&str], body: &[u8]) -> (u16, String, String) {
        let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
        let mut bytes = format!(
            "POST {path} HTTP/1.1\r\nHost: here:5985\r\nConnection: close\r\n\
             Content-Length: {}\r\n{headers}\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        let response = self.exchange(&bytes).await;
        let response = String::from_utf8(response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), body.to_owned())
    }

    /// Sends an envelope; status and envelope of the reply.
    pub async fn send(&self, envelope: &str) -> (u16, String) {
        let headers = ["Content-Type: application/soap+xml;charset=UTF-8"];
        let (status, _, body) = self.post("/wsman", &headers, envelope.as_bytes()).await;
        (status, body)
    }

    /// The same of one that must be answered.
    pub async fn ok(&self, envelope: &str) -> String {
        let (status, body) = self.send(envelope).await;
        assert_eq!(status, 200, "{envelope}\n{body}");
        body
    }
}

/// An envelope as clients send it.
pub fn envelope(action: &str, resource: &str, headers: &str, body: &str) -> String {
    format!(
        "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
         xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
         xmlns:w=\"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\" \
         xmlns:n=\"http://schemas.xmlsoap.org/ws/2004/09/enumeration\" \
         xmlns:b=\"http://schemas.dmtf.org/wbem/wsman/1/cimbinding.xsd\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><s:Header>\
         <a:To>http://here:5985/wsman</a:To>\
         <w:ResourceURI s:mustUnderstand=\"true\">{resource}</w:ResourceURI>\
         <a:ReplyTo><a:Address s:mustUnderstand=\"true\">\
         http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo>\
         <a:Action s:mustUnderstand=\"true\">{action}</a:Action>\
         <a:MessageID>uuid:5E6FD101-710A-4EEA-A50D-70C0BF863AA3</a:MessageID>{headers}\
         </s:Header><s:Body>{body}</s:Body></s:Envelope>"
    )
}

pub fn selectors(pairs: &[(&str, &str)]) -> String {
    let selectors: String = pairs
        .iter()
        .map(|(name, value)| {
            let value = value
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('"', "&quot;");
            format!("<w:Selector Name=\"{name}\">{value}</w:Selector>")
        })
        .collect();
    format!("<w:SelectorSet>{selectors}</w:SelectorSet>")
}
