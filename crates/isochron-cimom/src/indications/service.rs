//! What `interop` shows of indications: the service, what it can do, and the
//! profile that it conforms to, each made from what holds at this start.

use futures::TryStreamExt;
use isochron_cim::{CimError, CimServer, Instance, Name, ObjectPath, Value};

use super::{Indications, text};
use crate::manager::{INTEROP, ourselves};
use crate::space::references;

const SERVICE: &str = "CIM_IndicationService";
const CAPABILITIES: &str = "CIM_IndicationServiceCapabilities";
const AFFECTS: Name = Name::fixed("CIM_ServiceAffectsElement");
/// DSP1054, the profile that is followed.
const PROFILE: &str = "Indications";
/// The version that is followed, and the one that it extends, which clients look for.
const VERSIONS: [&str; 2] = ["1.2.2", "1.1.0"];

/// The keys of this server's system, as its `CIM_ObjectManager` has them.
pub(super) async fn system(provider: &dyn CimServer) -> Result<[String; 2], CimError> {
    let (cx, class) = (ourselves(INTEROP[0]), Name::fixed("CIM_ObjectManager"));
    let mut managers = provider.enumerate_instances(&cx, &class).await?;
    let none = || CimError::failed("the provider has no CIM_ObjectManager in interop");
    let manager = managers.try_next().await?.ok_or_else(none)?;
    Ok(["SystemCreationClassName", "SystemName"].map(|key| text(&manager, key).to_owned()))
}

impl Indications {
    fn service(&self) -> ObjectPath {
        let [class, name] = &self.system;
        ObjectPath::class(SERVICE)
            .with_key("SystemCreationClassName", &**class)
            .with_key("SystemName", &**name)
            .with_key("CreationClassName", SERVICE)
            .with_key("Name", "isochron")
            .in_namespace(self.interop.name())
    }

    /// Shows the service and what belongs to it.
    pub(super) async fn show_service(&self) -> Result<(), CimError> {
        let _writing = self.interop.write().await?;
        let service = self.service();
        let capabilities = self.show(&self.capabilities())?;
        self.show(&self.service_instance())?;
        let link = |class: &'static str, ends: [(&'static str, &ObjectPath); 2]| {
            let mut link = Instance::new(class);
            for (role, path) in ends {
                link.set(role, path.clone());
            }
            link
        };
        let mut has = link(
            "CIM_ElementCapabilities",
            [
                ("ManagedElement", &service),
                ("Capabilities", &capabilities),
            ],
        );
        // 3: current.
        has.set("Characteristics", vec![3_u16]);
        self.show(&has)?;
        for version in VERSIONS {
            let profile = self.show(&profile(version))?;
            self.show(&link(
                "CIM_ElementConformsToProfile",
                [
                    ("ConformantStandard", &profile),
                    ("ManagedElement", &service),
                ],
            ))?;
        }
        if let Some(system) = self.host().await {
            self.show(&link(
                "CIM_HostedService",
                [("Antecedent", &system), ("Dependent", &service)],
            ))?;
        }
        Ok(())
    }

    fn show(&self, instance: &Instance) -> Result<ObjectPath, CimError> {
        let instance = self.interop.whole(instance.clone())?;
        let path = instance.path.clone().unwrap_or_default();
        self.interop.show(instance);
        Ok(path)
    }

    /// The system, in whichever of the provider's namespaces it is.
    async fn host(&self) -> Option<ObjectPath> {
        let [class, name] = &self.system;
        let path = ObjectPath::class(class.as_str())
            .with_key("CreationClassName", &**class)
            .with_key("Name", &**name);
        for namespace in self.provider.namespaces() {
            let cx = ourselves(&namespace);
            if self.provider.get_instance(&cx, &path).await.is_ok() {
                return Some(path.in_namespace(namespace));
            }
        }
        None
    }

    fn service_instance(&self) -> Instance {
        let delivery = self.options.delivery;
        let seconds = |span: std::time::Duration| {
            let whole = span.as_secs() + u64::from(span.subsec_nanos() > 0);
            Value::Uint32(u32::try_from(whole).unwrap_or(u32::MAX))
        };
        let mut service = Instance::new(SERVICE);
        for (key, value) in self.service().keys {
            service.set(key, value);
        }
        service
            .set("ElementName", "Indications")
            .set("EnabledState", 2_u16)
            .set("EnabledDefault", 2_u16)
            .set("RequestedState", 12_u16)
            .set("Started", true)
            .set("OperationalStatus", vec![2_u16])
            .set("HealthState", 5_u16)
            .set("FilterCreationEnabled", true)
            .set(
                "DeliveryRetryAttempts",
                u16::try_from(delivery.retries.attempts).unwrap_or(u16::MAX),
            )
            .set("DeliveryRetryInterval", seconds(delivery.retries.interval))
            // 4: ignore. What a destination or a subscription says goes before.
            .set("SubscriptionRemovalAction", 4_u16)
            .set(
                "SubscriptionRemovalTimeInterval",
                seconds(delivery.removal_interval),
            );
        service
    }

    fn capabilities(&self) -> Instance {
        let limits = self.interop.keeper().limits;
        let most = |limit: usize| Value::Uint32(u32::try_from(limit).unwrap_or(u32::MAX));
        let mut capabilities = Instance::new(CAPABILITIES);
        capabilities
            .set("InstanceID", format!("Isochron:{CAPABILITIES}"))
            .set("ElementName", "Indications")
            .set("FilterCreationEnabledIsSettable", false)
            .set("DeliveryRetryAttemptsIsSettable", false)
            .set("DeliveryRetryIntervalIsSettable", false)
            .set("SubscriptionRemovalActionIsSettable", false)
            .set("SubscriptionRemovalTimeIntervalIsSettable", false)
            .set("MaxListenerDestinations", most(limits.destinations))
            .set("MaxActiveSubscriptions", most(limits.subscriptions))
            .set("SubscriptionsPersisted", true);
        capabilities
    }

    /// Shows that the service works on a filter or a destination.
    pub(super) fn show_affected(&self, element: &ObjectPath) -> Result<(), CimError> {
        let mut link = Instance::new(AFFECTS);
        link.set("AffectedElement", element.clone())
            .set("AffectingElement", self.service())
            // 5: manages.
            .set("ElementEffects", vec![5_u16]);
        self.show(&link).map(drop)
    }

    /// Hides it again.
    pub(super) fn hide_affected(&self, element: &ObjectPath) {
        let affected = |link: &Instance| {
            link.class == AFFECTS && references(link).any(|(_, p)| p.relative() == *element)
        };
        for (link, _) in self.interop.links(element, &Default::default()) {
            if let Some(path) = link.path.as_ref().filter(|_| affected(&link)) {
                self.interop.hide(path);
            }
        }
    }
}

fn profile(version: &str) -> Instance {
    let mut profile = Instance::new("CIM_RegisteredProfile");
    profile
        .set("InstanceID", format!("DMTF:{PROFILE}:{version}"))
        .set("ElementName", PROFILE)
        // 2: DMTF.
        .set("RegisteredOrganization", 2_u16)
        .set("RegisteredName", PROFILE)
        .set("RegisteredVersion", version)
        // 2: not advertised elsewhere.
        .set("AdvertiseTypes", vec![2_u16]);
    profile
}
