//! A small CIM server for the tests: classes written as CIM-XML, instances in
//! memory, an association, and a method with every kind of parameter.

#![allow(dead_code)] // Each test crate uses its part.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use isochron_cim::{
    AssociationFilter, CimError, CimServer, CimType, Class, ClassQuery, Flavor, Instance,
    InstanceStream, Invocation, MethodTarget, Name, ObjectPath, Outcome, QualifierDecl,
    RequestContext, Scope, Status, TypedValue, Value,
};
use isochron_cimxml::decode::{Argument, Call, Limits, request};
use isochron_cimxml::{Config, Server};

pub const NAMESPACE: &str = "root/test";

const CLASSES: &[&str] = &[
    r#"<CLASS NAME="T_Base">
        <QUALIFIER NAME="Abstract" TYPE="boolean"><VALUE>true</VALUE></QUALIFIER>
        <QUALIFIER NAME="Description" TYPE="string" TRANSLATABLE="true"><VALUE>What all &lt;things&gt; share</VALUE></QUALIFIER>
        <PROPERTY NAME="Name" TYPE="string" CLASSORIGIN="T_Base">
          <QUALIFIER NAME="Key" TYPE="boolean" OVERRIDABLE="false"><VALUE>true</VALUE></QUALIFIER>
        </PROPERTY>
        <PROPERTY NAME="Caption" TYPE="string" CLASSORIGIN="T_Base"/>
      </CLASS>"#,
    r#"<CLASS NAME="T_Thing" SUPERCLASS="T_Base">
        <QUALIFIER NAME="Description" TYPE="string" TRANSLATABLE="true"><VALUE>A thing</VALUE></QUALIFIER>
        <PROPERTY NAME="Name" TYPE="string" CLASSORIGIN="T_Base" PROPAGATED="true">
          <QUALIFIER NAME="Key" TYPE="boolean" PROPAGATED="true" OVERRIDABLE="false"><VALUE>true</VALUE></QUALIFIER>
        </PROPERTY>
        <PROPERTY NAME="Caption" TYPE="string" CLASSORIGIN="T_Base" PROPAGATED="true"/>
        <PROPERTY NAME="Size" TYPE="uint64" CLASSORIGIN="T_Thing"><VALUE>5</VALUE></PROPERTY>
        <PROPERTY NAME="Delta" TYPE="sint64" CLASSORIGIN="T_Thing"/>
        <PROPERTY NAME="Ratio" TYPE="real64" CLASSORIGIN="T_Thing"/>
        <PROPERTY NAME="Letter" TYPE="char16" CLASSORIGIN="T_Thing"/>
        <PROPERTY NAME="On" TYPE="boolean" CLASSORIGIN="T_Thing"/>
        <PROPERTY NAME="When" TYPE="datetime" CLASSORIGIN="T_Thing"/>
        <PROPERTY.ARRAY NAME="Tags" TYPE="string" ARRAYSIZE="4" CLASSORIGIN="T_Thing"/>
        <PROPERTY NAME="Settings" TYPE="string" CLASSORIGIN="T_Thing">
          <QUALIFIER NAME="EmbeddedInstance" TYPE="string"><VALUE>T_Settings</VALUE></QUALIFIER>
        </PROPERTY>
        <METHOD NAME="Work" TYPE="uint32" CLASSORIGIN="T_Thing">
          <QUALIFIER NAME="Description" TYPE="string" TRANSLATABLE="true"><VALUE>Works</VALUE></QUALIFIER>
          <PARAMETER.REFERENCE NAME="Other" REFERENCECLASS="T_Thing"><QUALIFIER NAME="In" TYPE="boolean"><VALUE>true</VALUE></QUALIFIER></PARAMETER.REFERENCE>
          <PARAMETER NAME="Settings" TYPE="string"><QUALIFIER NAME="In" TYPE="boolean"><VALUE>true</VALUE></QUALIFIER></PARAMETER>
          <PARAMETER.ARRAY NAME="Numbers" TYPE="uint16"><QUALIFIER NAME="In" TYPE="boolean"><VALUE>true</VALUE></QUALIFIER></PARAMETER.ARRAY>
          <PARAMETER NAME="At" TYPE="datetime"><QUALIFIER NAME="In" TYPE="boolean"><VALUE>true</VALUE></QUALIFIER><QUALIFIER NAME="Out" TYPE="boolean"><VALUE>true</VALUE></QUALIFIER></PARAMETER>
          <PARAMETER NAME="Big" TYPE="uint64"><QUALIFIER NAME="In" TYPE="boolean"><VALUE>true</VALUE></QUALIFIER><QUALIFIER NAME="Out" TYPE="boolean"><VALUE>true</VALUE></QUALIFIER></PARAMETER>
          <PARAMETER.REFERENCE NAME="Job" REFERENCECLASS="T_Thing"><QUALIFIER NAME="In" TYPE="boolean"><VALUE>false</VALUE></QUALIFIER><QUALIFIER NAME="Out" TYPE="boolean"><VALUE>true</VALUE></QUALIFIER></PARAMETER.REFERENCE>
          <PARAMETER.REFARRAY NAME="All" REFERENCECLASS="T_Thing"><QUALIFIER NAME="In" TYPE="boolean"><VALUE>false</VALUE></QUALIFIER><QUALIFIER NAME="Out" TYPE="boolean"><VALUE>true</VALUE></QUALIFIER></PARAMETER.REFARRAY>
        </METHOD>
        <METHOD NAME="Add" TYPE="uint32" CLASSORIGIN="T_Thing">
          <QUALIFIER NAME="Static" TYPE="boolean"><VALUE>true</VALUE></QUALIFIER>
          <PARAMETER NAME="A" TYPE="uint32"/><PARAMETER NAME="B" TYPE="uint32"/>
        </METHOD>
      </CLASS>"#,
    r#"<CLASS NAME="T_BigThing" SUPERCLASS="T_Thing">
        <PROPERTY NAME="Name" TYPE="string" CLASSORIGIN="T_Base" PROPAGATED="true"/>
        <PROPERTY NAME="Size" TYPE="uint64" CLASSORIGIN="T_Thing" PROPAGATED="true"/>
        <PROPERTY NAME="Extra" TYPE="uint8" CLASSORIGIN="T_BigThing"/>
      </CLASS>"#,
    r#"<CLASS NAME="T_Many"><PROPERTY NAME="Name" TYPE="string"><QUALIFIER NAME="Key" TYPE="boolean"><VALUE>true</VALUE></QUALIFIER></PROPERTY></CLASS>"#,
    r#"<CLASS NAME="T_Settings"><PROPERTY NAME="Level" TYPE="uint16"/><PROPERTY NAME="Text" TYPE="string"/></CLASS>"#,
    r#"<CLASS NAME="T_Link">
        <QUALIFIER NAME="Association" TYPE="boolean" OVERRIDABLE="false"><VALUE>true</VALUE></QUALIFIER>
        <PROPERTY.REFERENCE NAME="Antecedent" REFERENCECLASS="T_Thing"><QUALIFIER NAME="Key" TYPE="boolean"><VALUE>true</VALUE></QUALIFIER></PROPERTY.REFERENCE>
        <PROPERTY.REFERENCE NAME="Dependent" REFERENCECLASS="T_BigThing"><QUALIFIER NAME="Key" TYPE="boolean"><VALUE>true</VALUE></QUALIFIER></PROPERTY.REFERENCE>
      </CLASS>"#,
];

/// A text that a codec can get wrong in every way.
pub const AWKWARD: &str = "a<b>&\"c\" 'd' \u{e9}\u{1f600} ]]> \ttab\nline\r\nend  ";

pub fn wrap(namespace: &str, method: &str, parameters: &str) -> String {
    let parts: String = namespace
        .split('/')
        .map(|part| format!("<NAMESPACE NAME=\"{part}\"/>"))
        .collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\">\
         <MESSAGE ID=\"42\" PROTOCOLVERSION=\"1.0\"><SIMPLEREQ><IMETHODCALL NAME=\"{method}\">\
         <LOCALNAMESPACEPATH>{parts}</LOCALNAMESPACEPATH>{parameters}</IMETHODCALL>\
         </SIMPLEREQ></MESSAGE></CIM>"
    )
}

pub fn class(xml: &str) -> Class {
    let body = wrap(
        NAMESPACE,
        "M",
        &format!("<IPARAMVALUE NAME=\"X\">{xml}</IPARAMVALUE>"),
    );
    let request = request(body.as_bytes(), Limits::default()).expect("a request");
    let Call::Intrinsic {
        arguments: Ok(arguments),
        ..
    } = request.call
    else {
        panic!("{:?}", request.call)
    };
    match arguments.get(&Name::from("X")) {
        Some(Argument::Class(class)) => class.clone(),
        other => panic!("{other:?}"),
    }
}

pub fn thing_path(class: &str, name: &str) -> ObjectPath {
    ObjectPath::class(class)
        .with_key("Name", name)
        .in_namespace(NAMESPACE)
}

pub struct TestServer {
    pub classes: Vec<Class>,
    pub instances: Mutex<Vec<Instance>>,
    /// Whether a call of the method Slow has come to its end.
    pub slow_done: std::sync::atomic::AtomicBool,
    pub many: Many,
}

/// The instances of T_Many, which are made as they are taken.
#[derive(Clone, Default)]
pub struct Many {
    /// How many there are.
    pub count: usize,
    /// After how many an error comes, in their place.
    pub fails_after: Option<usize>,
    /// How many were made.
    pub made: Arc<AtomicUsize>,
}

impl Many {
    fn stream(&self) -> InstanceStream {
        let (made, fails_after) = (Arc::clone(&self.made), self.fails_after);
        let one = move |number: usize| {
            if fails_after == Some(number) {
                return Err(CimError::failed("100 % of the disk: gone"));
            }
            made.fetch_add(1, Ordering::SeqCst);
            let name = format!("{number:0>1000}");
            let mut instance = Instance::new("T_Many");
            instance.path = Some(thing_path("T_Many", &name));
            instance.set("Name", name);
            Ok(instance)
        };
        futures::stream::iter(0..self.count).map(one).boxed()
    }
}

impl TestServer {
    pub fn new() -> Self {
        let mut settings = Instance::new("T_Settings");
        settings.set("Level", 3u16).set("Text", AWKWARD);
        let mut one = Instance::new("T_Thing");
        one.path = Some(thing_path("T_Thing", "one"));
        one.set("Name", "one")
            .set("Caption", AWKWARD)
            .set("Size", u64::MAX);
        one.set("Delta", Value::Sint64(i64::MIN))
            .set("Ratio", Value::Real64(1e300));
        one.set("Letter", Value::Char16(0x20ac)).set("On", true);
        let when = CimType::DateTime
            .parse("20260102030405.123456+060")
            .expect("a datetime");
        one.set("When", when);
        one.set("Tags", vec!["x", AWKWARD]);
        one.set("Settings", settings);
        one.properties
            .get_mut(&Name::from("Size"))
            .expect("Size")
            .class_origin = Some("T_Thing".into());
        let mut two = Instance::new("T_BigThing");
        let awkward_key = "two \"quoted\" <&>";
        two.path = Some(thing_path("T_BigThing", awkward_key));
        two.set("Name", awkward_key)
            .set("Size", 7u64)
            .set("Extra", Value::Uint8(1));
        two.set("Caption", "bell\u{7} and \u{ffff}");
        let mut link = Instance::new("T_Link");
        let ends = [
            ("Antecedent", thing_path("T_Thing", "one")),
            ("Dependent", thing_path("T_BigThing", awkward_key)),
        ];
        let mut path = ObjectPath::class("T_Link").in_namespace(NAMESPACE);
        for (role, end) in ends {
            path = path.with_key(role, end.clone());
            link.set(role, end);
        }
        link.path = Some(path);
        Self {
            classes: CLASSES.iter().map(|xml| class(xml)).collect(),
            instances: Mutex::new(vec![one, two, link]),
            slow_done: Default::default(),
            many: Many::default(),
        }
    }

    fn derives(&self, class: &Name, ancestor: &Name) -> bool {
        let mut at = Some(class.clone());
        while let Some(name) = at {
            if name == *ancestor {
                return true;
            }
            at = self.class(&name).and_then(|class| class.superclass.clone());
        }
        false
    }

    fn class(&self, name: &Name) -> Option<&Class> {
        self.classes.iter().find(|class| class.name == *name)
    }

    fn known(&self, name: &Name) -> Result<&Class, CimError> {
        let error = || CimError::new(Status::InvalidClass, format!("no class {name}"));
        self.class(name).ok_or_else(error)
    }

    fn find(&self, path: &ObjectPath) -> Result<Instance, CimError> {
        self.known(&path.class)?;
        let instances = self.instances.lock().expect("lock");
        let same = |i: &&Instance| {
            i.path
                .as_ref()
                .is_some_and(|p| p.relative() == path.relative())
        };
        instances
            .iter()
            .find(same)
            .cloned()
            .ok_or_else(|| CimError::not_found("no such instance"))
    }

    fn links(&self, source: &ObjectPath, filter: &AssociationFilter) -> Vec<(Instance, Name)> {
        let instances = self.instances.lock().expect("lock");
        let links = instances.iter().filter(|i| i.class.is("T_Link"));
        links
            .flat_map(|link| {
                link.properties.iter().filter_map(|(role, property)| {
                    let end = property.value.value.as_ref()?.as_reference()?;
                    let played = filter.role.as_ref().is_none_or(|wanted| wanted == role);
                    let through = filter
                        .association
                        .as_ref()
                        .is_none_or(|class| class.is("T_Link"));
                    (end.relative() == source.relative() && played && through)
                        .then(|| (link.clone(), role.clone()))
                })
            })
            .collect()
    }
}

fn stream(instances: Vec<Instance>) -> InstanceStream {
    futures::stream::iter(instances.into_iter().map(Ok)).boxed()
}

fn typed(ty: CimType, value: impl Into<Value>) -> TypedValue {
    let value = value.into();
    TypedValue {
        ty,
        is_array: matches!(value, Value::Array(_)),
        value: Some(value),
    }
}

#[async_trait]
impl CimServer for TestServer {
    fn namespaces(&self) -> Vec<String> {
        vec![NAMESPACE.into(), "interop".into()]
    }

    async fn get_class(&self, _: &RequestContext, class: &Name) -> Result<Class, CimError> {
        self.known(class).cloned()
    }

    async fn enumerate_classes(
        &self,
        _: &RequestContext,
        query: &ClassQuery,
    ) -> Result<Vec<Class>, CimError> {
        if let Some(below) = &query.below {
            self.known(below)?;
        }
        let wanted = |class: &&Class| match (&query.below, query.deep) {
            (below, false) => class.superclass == *below,
            (None, true) => true,
            (Some(below), true) => class.name != *below && self.derives(&class.name, below),
        };
        Ok(self.classes.iter().filter(wanted).cloned().collect())
    }

    async fn get_qualifier(
        &self,
        cx: &RequestContext,
        name: &Name,
    ) -> Result<QualifierDecl, CimError> {
        let all = self.enumerate_qualifiers(cx).await?;
        let found = all.into_iter().find(|declared| declared.name == *name);
        found.ok_or_else(|| CimError::not_found(format!("no qualifier {name}")))
    }

    async fn enumerate_qualifiers(
        &self,
        _: &RequestContext,
    ) -> Result<Vec<QualifierDecl>, CimError> {
        Ok(vec![
            QualifierDecl {
                name: "Key".into(),
                value: typed(CimType::Boolean, false),
                array_size: None,
                scope: vec![Scope::Property, Scope::Reference],
                flavor: Flavor {
                    to_subclass: true,
                    overridable: false,
                    translatable: false,
                },
            },
            QualifierDecl {
                name: "Values".into(),
                value: TypedValue {
                    ty: CimType::String,
                    is_array: true,
                    value: None,
                },
                array_size: None,
                scope: vec![Scope::Any],
                flavor: Flavor {
                    translatable: true,
                    ..Flavor::default()
                },
            },
        ])
    }

    async fn get_instance(
        &self,
        _: &RequestContext,
        path: &ObjectPath,
    ) -> Result<Instance, CimError> {
        self.find(path)
    }

    async fn enumerate_instances(
        &self,
        _: &RequestContext,
        class: &Name,
    ) -> Result<InstanceStream, CimError> {
        self.known(class)?;
        if class.is("T_Many") {
            return Ok(self.many.stream());
        }
        let instances = self.instances.lock().expect("lock");
        let found = instances
            .iter()
            .filter(|i| self.derives(&i.class, class))
            .cloned()
            .collect();
        Ok(stream(found))
    }

    async fn associators(
        &self,
        _: &RequestContext,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> Result<InstanceStream, CimError> {
        self.find(source)?;
        let mut found = Vec::new();
        for (link, near) in self.links(source, filter) {
            for (role, property) in &link.properties {
                let wanted = filter
                    .result_role
                    .as_ref()
                    .is_none_or(|wanted| wanted == role);
                let end = property.value.value.as_ref().and_then(Value::as_reference);
                let Some(end) = end.filter(|_| *role != near && wanted) else {
                    continue;
                };
                let fits = filter.result_class.as_ref();
                if fits.is_none_or(|class| self.derives(&end.class, class)) {
                    found.push(self.find(end)?);
                }
            }
        }
        Ok(stream(found))
    }

    async fn references(
        &self,
        _: &RequestContext,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> Result<InstanceStream, CimError> {
        self.find(source)?;
        Ok(stream(
            self.links(source, filter)
                .into_iter()
                .map(|(link, _)| link)
                .collect(),
        ))
    }

    async fn create_instance(
        &self,
        _: &RequestContext,
        mut instance: Instance,
    ) -> Result<ObjectPath, CimError> {
        self.known(&instance.class)?;
        let Some(name) = instance.get("Name").and_then(Value::as_str) else {
            return Err(CimError::invalid_parameter("Name is needed"));
        };
        let path = thing_path(instance.class.as_str(), name);
        if self.find(&path).is_ok() {
            return Err(CimError::new(Status::AlreadyExists, "it is there already"));
        }
        instance.path = Some(path.clone());
        self.instances.lock().expect("lock").push(instance);
        Ok(path)
    }

    async fn modify_instance(
        &self,
        _: &RequestContext,
        path: &ObjectPath,
        changes: Instance,
    ) -> Result<(), CimError> {
        self.find(path)?;
        let mut instances = self.instances.lock().expect("lock");
        for instance in instances.iter_mut() {
            if instance
                .path
                .as_ref()
                .is_some_and(|p| p.relative() == path.relative())
            {
                instance.properties.extend(changes.properties.clone());
            }
        }
        Ok(())
    }

    async fn delete_instance(&self, _: &RequestContext, path: &ObjectPath) -> Result<(), CimError> {
        self.find(path)?;
        let mut instances = self.instances.lock().expect("lock");
        instances.retain(|i| {
            i.path
                .as_ref()
                .is_none_or(|p| p.relative() != path.relative())
        });
        Ok(())
    }

    async fn invoke_method(
        &self,
        _: &RequestContext,
        call: Invocation,
    ) -> Result<Outcome, CimError> {
        let get = |name: &str| {
            call.parameters
                .get(&Name::from(name))
                .and_then(|parameter| parameter.value.clone())
        };
        let number = |name: &str| match get(name) {
            Some(Value::String(text)) => text.parse().unwrap_or(0),
            Some(value) => value.as_u64().unwrap_or(0),
            None => 0,
        };
        match (&call.target, call.method.as_str().to_lowercase().as_str()) {
            (MethodTarget::Class(_), "add") => Ok(Outcome {
                return_value: typed(
                    CimType::Uint32,
                    u32::try_from(number("A") + number("B")).unwrap_or(u32::MAX),
                ),
                parameters: Default::default(),
            }),
            (MethodTarget::Instance(path), "work") => {
                self.find(path)?;
                let mut parameters: indexmap::IndexMap<Name, TypedValue> = Default::default();
                if let Some(Value::DateTime(at)) = get("At") {
                    parameters.insert("At".into(), typed(CimType::DateTime, at));
                }
                parameters.insert(
                    "Big".into(),
                    typed(CimType::Uint64, number("Big").wrapping_sub(1)),
                );
                let reference = CimType::Reference(Some("T_Thing".into()));
                let null = TypedValue {
                    ty: reference.clone(),
                    is_array: false,
                    value: get("Other"),
                };
                parameters.insert("Job".into(), null);
                if let Some(other) = get("Other") {
                    let all = Value::Array(vec![Some(path.clone().into()), None, Some(other)]);
                    parameters.insert("All".into(), typed(reference, all));
                }
                if let Some(numbers) = get("Numbers") {
                    parameters.insert("Numbers".into(), typed(CimType::Uint16, numbers));
                }
                if let Some(settings) = get("Settings") {
                    parameters.insert("Settings".into(), typed(CimType::String, settings));
                }
                Ok(Outcome {
                    return_value: typed(CimType::Uint32, 4096u32),
                    parameters,
                })
            }
            (_, "slow") => {
                tokio::time::sleep(std::time::Duration::from_millis(600)).await;
                self.slow_done
                    .store(true, std::sync::atomic::Ordering::SeqCst);
                Ok(Outcome {
                    return_value: typed(CimType::Uint32, 77u32),
                    parameters: Default::default(),
                })
            }
            (_, "panic") => panic!("as the test asked"),
            _ => Err(CimError::new(
                Status::MethodNotFound,
                format!("there is no method {}", call.method),
            )),
        }
    }
}

/// A server on loopback that ends with the value.
pub struct Running {
    pub address: SocketAddr,
    pub server: Arc<TestServer>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Running {
    pub async fn start(config: Config) -> Self {
        Self::start_with(config, TestServer::new()).await
    }

    pub async fn start_with(config: Config, cim: TestServer) -> Self {
        let server = Server::bind("127.0.0.1:0", config).await.expect("bind");
        let address = server.local_addr().expect("address");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let cim = Arc::new(cim);
        let task = tokio::spawn(
            server.serve(Arc::clone(&cim) as Arc<dyn CimServer>, async move {
                stopped.await.ok();
            }),
        );
        Self {
            address,
            server: cim,
            stop: Some(stop),
            task,
        }
    }

    pub async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.expect("no panic").expect("served");
    }
}
