//! A namespace for conformance tests, offered only where the daemon is told to: its
//! methods send indications on demand and answer late, and one class has as many
//! instances as it is told to. What clients write in it is forgotten with the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures::stream::{self, StreamExt};
use indexmap::IndexMap;
use isochron_cim::mof::{self, Declaration};
use isochron_cim::{
    CimError, CimType, DateTime, Indication, Instance, InstanceStream, Invocation, MethodTarget,
    Name, Outcome, Repository, Status, TypedValue, Value,
};
use tokio::sync::broadcast;

use crate::manager::{ObjectManager, OpenError};
use crate::records::MemoryRecords;
use crate::space::{Keeper, Space};

/// The namespace.
const NAMESPACE: &str = "test/TestProvider";
const SENDS: &str = "Test_IndicationProviderClass";
const RESPONDS: Name = Name::fixed("TST_ResponseStressTestCxx");
const MOF: &str = include_str!("../mof/test_provider.mof");

/// The most indications that one call sends.
const MAX_SENT: u64 = 100_000;
/// The most instances that there may be made to be, and their most characters.
const MAX_RESPONSES: u64 = 1_000_000;
const MAX_SIZE: u64 = 1 << 20;
/// The longest that a call may be made to take, in seconds.
const MAX_DELAY: u64 = 300;
/// How many indications wait for their readers before the next one is sent.
const WAITING: usize = 256;

/// What the tests set.
#[derive(Debug, Default)]
pub(crate) struct TestProvider {
    responses: AtomicU64,
    size: AtomicU64,
}

impl ObjectManager {
    /// Adds the namespace, for as long as this process lives.
    ///
    /// # Errors
    /// A client has a namespace of this name; the classes do not fit together.
    pub async fn add_test_provider(&mut self) -> Result<(), OpenError> {
        if self.namespaces.find(NAMESPACE).is_some() {
            let message = format!("there is a namespace {NAMESPACE} already");
            return Err(CimError::new(Status::AlreadyExists, message).into());
        }
        let schema = schema(&self.interop.schema())?;
        let keeper = Keeper {
            records: Arc::new(MemoryRecords::default()),
            ..self.interop.keeper().clone()
        };
        let space = Space::new(NAMESPACE, keeper, schema, Default::default());
        self.namespaces.insert(space);
        self.show_namespace(NAMESPACE).await?;
        self.test_provider = Some(TestProvider::default());
        Ok(())
    }

    /// Carries a method out, if it is one of the tests'.
    pub(crate) async fn invoke_test(
        &self,
        space: &Space,
        call: &Invocation,
    ) -> Option<Result<Outcome, CimError>> {
        let provider = self.test_provider_of(space)?;
        let class = match &call.target {
            MethodTarget::Class(class) => class,
            MethodTarget::Instance(path) => &path.class,
        };
        let given = call.parameters.clone();
        let checked = space.schema().check_parameters(class, &call.method, given);
        let parameters = match checked {
            Ok(parameters) => parameters,
            Err(error) => return Some(Err(error)),
        };
        let number = |name: &str, most: u64| {
            let value = parameters.get(&Name::from(name))?.value.as_ref();
            let value = value.and_then(Value::as_u64).filter(|v| *v <= most);
            let wrong = || CimError::invalid_parameter(format!("{name} is a number up to {most}"));
            Some(value.ok_or_else(wrong))
        };
        if let Some(count) = number("indicationSendCount", MAX_SENT) {
            return Some(match count {
                Ok(count) => {
                    send(&space.keeper().indications, count).await;
                    Ok(outcome(IndexMap::new()))
                }
                Err(error) => Err(error),
            });
        }
        let responses = number("ResponseCount", MAX_RESPONSES);
        if let Some((responses, size)) = responses.zip(number("Size", MAX_SIZE)) {
            return Some(responses.and_then(|responses| {
                provider.size.store(size?, Ordering::Relaxed);
                provider.responses.store(responses, Ordering::Relaxed);
                Ok(outcome(IndexMap::new()))
            }));
        }
        let delay = number("delayInSeconds", MAX_DELAY)?;
        Some(match delay {
            Ok(delay) => {
                tokio::time::sleep(Duration::from_secs(delay)).await;
                Ok(outcome(parameters))
            }
            Err(error) => Err(error),
        })
    }
}

impl ObjectManager {
    fn test_provider_of(&self, space: &Space) -> Option<&TestProvider> {
        let provider = self.test_provider.as_ref()?;
        (space.name() == NAMESPACE).then_some(provider)
    }

    /// The instances of the class of which there are as many as were asked for.
    pub(crate) fn made_for_tests(
        &self,
        space: &Arc<Space>,
        class: &Name,
    ) -> Option<InstanceStream> {
        let provider = self.test_provider_of(space)?;
        if *class != RESPONDS {
            return None;
        }
        let count = provider.responses.load(Ordering::Relaxed);
        let size = provider.size.load(Ordering::Relaxed);
        let text = "0123456789".chars().cycle();
        let text: String = text.zip(0..size).map(|(digit, _)| digit).collect();
        let space = Arc::clone(space);
        let made = move |number: u64| {
            let mut instance = Instance::new(RESPONDS);
            instance
                .set("Id", format!("{RESPONDS}{number}"))
                .set("SequenceNumber", number)
                .set("ResponseCount", count)
                .set("Size", size)
                .set("S1", text.clone());
            space.whole(instance)
        };
        Some(stream::iter(1..=count).map(made).boxed())
    }
}

fn outcome(parameters: IndexMap<Name, TypedValue>) -> Outcome {
    Outcome {
        return_value: TypedValue {
            ty: CimType::Uint32,
            is_array: false,
            value: Some(Value::Uint32(0)),
        },
        parameters,
    }
}

/// Sends so many indications, no faster than they are read.
async fn send(readers: &broadcast::Sender<Indication>, count: u64) {
    for number in 1..=count {
        while readers.len() >= WAITING {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut instance = Instance::new(SENDS);
        instance
            .set("IndicationIdentifier", number.to_string())
            .set("IndicationTime", DateTime::from(SystemTime::now()));
        let namespace = NAMESPACE.to_owned();
        // Nobody listens: nobody is to be told.
        let _ = readers.send(Indication {
            namespace,
            instance,
        });
    }
}

/// The tests' classes, with the one that indications derive from.
fn schema(interop: &Repository) -> Result<Repository, OpenError> {
    let mut schema = Repository::default();
    let mut qualifiers = interop.qualifiers().clone();
    let classes = mof::parse("test_provider.mof", MOF, &mut qualifiers, &mut |_| None);
    let classes = classes.map_err(CimError::failed)?;
    for decl in qualifiers.into_values() {
        schema.add_qualifier(decl);
    }
    let indication = interop.class(&Name::fixed("CIM_Indication"))?;
    schema.add_class(indication.clone().declared())?;
    for (_, declaration) in classes {
        if let Declaration::Class(class) = declaration {
            schema.add_class(*class)?;
        }
    }
    Ok(schema)
}
