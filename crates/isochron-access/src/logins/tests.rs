//! Who gets in, how fast, and what the log says of it.
#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

use std::path::PathBuf;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use isochron_cim::Role as CimRole;
use isochron_engine::{Config, Engine, ErrorKind};
use isochron_sim::World;
use serde_json::Value;

use super::*;
use crate::User;

const RIGHT: &str = "correct horse";

struct Scene {
    engine: Engine,
    users: Arc<Users>,
    logins: Arc<Logins>,
    world: World,
    directory: tempfile::TempDir,
}

fn log_of(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("audit.log")
}

impl Scene {
    async fn new(config: LoginConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let world = World::new();
        let daemon = world.daemon();
        let audit = Arc::new(AuditLog::open(&log_of(&directory)).unwrap());
        let engine = Engine::open(
            daemon.hypervisor(),
            daemon.store(),
            daemon.archive(),
            world.clock(),
            Config::new(directory.path()),
        );
        let engine = engine.await.unwrap().audited(audit.clone());
        let users = Arc::new(Users::open(daemon.store()).await.unwrap());
        let logins = Logins::new(users.clone(), config, audit).await.unwrap();
        Self {
            engine,
            users,
            logins: Arc::new(logins),
            world,
            directory,
        }
    }

    async fn add(&self, name: &str, role: Role) {
        let added = self
            .users
            .add(&self.engine, name, role, RIGHT.into(), false);
        added.await.unwrap();
    }

    async fn login(&self, name: &str, password: &str) -> Result<Principal, Denied> {
        let header = basic(name, password);
        self.logins.authenticate(Some(&header), &peer(7)).await
    }

    /// Ends everything, which waits for the log to be written, and reads the log.
    fn log(self) -> Vec<Value> {
        let Self { directory, .. } = self;
        drop((self.engine, self.users, self.logins, self.world));
        let text = std::fs::read_to_string(log_of(&directory)).unwrap();
        let line = |line| serde_json::from_str(line).unwrap();
        text.lines().map(line).collect()
    }
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

fn peer(last: u8) -> Peer {
    Peer {
        address: ([10, 0, 0, last], 4000).into(),
        face: "test",
        encrypted: true,
        certificate: None,
    }
}

#[tokio::test]
async fn who_is_known_gets_in_as_they_are_now() {
    let scene = Scene::new(LoginConfig::default()).await;
    scene.add("ada", Role::Operator).await;
    let ada = scene.login("ada", RIGHT).await.unwrap();
    assert_eq!(
        ada,
        Principal::user("ada", CimRole::Operator).through("test", peer(7).address)
    );
    for (name, password) in [
        ("ada", "correct Horse"),
        ("ada", ""),
        ("Ada", RIGHT),
        ("bob", RIGHT),
        ("", RIGHT),
        ("ada\"}", RIGHT),
    ] {
        let denied = scene.login(name, password).await;
        assert_eq!(denied, Err(Denied::Unknown), "{name}");
    }
    for header in [None, Some("Negotiate abc"), Some("Basic ???"), Some("")] {
        let denied = scene.logins.authenticate(header, &peer(8)).await;
        assert_eq!(denied, Err(Denied::Unknown), "{header:?}");
    }
    // A role counts from the next request on, a new password too, and so does the end.
    let (users, engine) = (&scene.users, &scene.engine);
    let reader = users.set_role(engine, "ada", Role::Reader).await.unwrap();
    assert_eq!(reader.role, Role::Reader);
    let ada = scene.login("ada", RIGHT).await.unwrap();
    assert_eq!(ada.role, CimRole::Reader);
    let other = "another horse".to_owned();
    users
        .set_password(engine, "ada", other.clone(), false)
        .await
        .unwrap();
    assert_eq!(scene.login("ada", RIGHT).await, Err(Denied::Unknown));
    assert!(scene.login("ada", &other).await.is_ok());
    // Whoever is called so later is somebody else.
    users.remove(engine, "ada").await.unwrap();
    assert_eq!(scene.login("ada", &other).await, Err(Denied::Unknown));
    scene.add("ada", Role::Reader).await;
    assert_eq!(scene.login("ada", &other).await, Err(Denied::Unknown));
    assert!(scene.login("ada", RIGHT).await.is_ok());
}

#[tokio::test]
async fn users_are_kept_and_changed_by_administrators_only() {
    let scene = Scene::new(LoginConfig::default()).await;
    scene.add("ada", Role::Administrator).await;
    scene.add("bob", Role::Reader).await;
    let (users, engine) = (&scene.users, &scene.engine);
    let kind = |result: Result<User, EngineError>| result.unwrap_err().kind;
    let add = async |name: &str, password: &str| {
        let added = users.add(engine, name, Role::Reader, password.into(), false);
        kind(added.await)
    };
    assert_eq!(add("ada", RIGHT).await, ErrorKind::Exists);
    for name in ["", "a b", "a:b", "-a", "ä", "a/b", &"a".repeat(65)] {
        assert_eq!(
            add(name, RIGHT).await,
            ErrorKind::InvalidParameter,
            "{name}"
        );
    }
    assert_eq!(add("carl", "short").await, ErrorKind::InvalidParameter);
    let nobody = users.set_role(engine, "carl", Role::Reader).await;
    assert_eq!(kind(nobody), ErrorKind::NotFound);
    let nobody = users
        .set_password(engine, "carl", RIGHT.into(), false)
        .await;
    assert_eq!(kind(nobody), ErrorKind::NotFound);
    assert_eq!(
        users.remove(engine, "carl").await.unwrap_err().kind,
        ErrorKind::NotFound
    );
    for role in [Role::Reader, Role::Operator] {
        let engine = engine.on_behalf_of(Caller::user("bob", role, "test"));
        let denied = ErrorKind::AccessDenied;
        let added = users.add(&engine, "carl", role, RIGHT.into(), false).await;
        assert_eq!(kind(added), denied);
        let up = users.set_role(&engine, "bob", Role::Administrator).await;
        assert_eq!(kind(up), denied);
        let set = users
            .set_password(&engine, "ada", RIGHT.into(), false)
            .await;
        assert_eq!(kind(set), denied);
        assert_eq!(users.remove(&engine, "ada").await.unwrap_err().kind, denied);
        assert_eq!(users.list(&engine).unwrap_err().kind, denied);
    }
    let listed = users.list(engine).unwrap();
    let names: Vec<_> = listed.iter().map(|user| (&*user.name, user.role)).collect();
    assert_eq!(names, [("ada", Role::Administrator), ("bob", Role::Reader)]);
    // Another life of the daemon knows the same ones.
    let again = Users::open(scene.world.daemon().store()).await.unwrap();
    assert_eq!(again.list(engine).unwrap(), listed);
}

/// Not every request pays for Argon2, and a guess does not come by way of it.
#[tokio::test]
async fn a_password_that_was_proved_is_known_at_once() {
    let scene = Scene::new(LoginConfig::default()).await;
    scene.add("ada", Role::Reader).await;
    let began = Instant::now();
    scene.login("ada", RIGHT).await.unwrap();
    let first = began.elapsed();
    let began = Instant::now();
    for _ in 0..100 {
        scene.login("ada", RIGHT).await.unwrap();
    }
    assert!(began.elapsed() < first, "{:?}", began.elapsed());
    assert!(scene.login("ada", "correct horst").await.is_err());
    assert!(scene.login("ada", RIGHT).await.is_ok());
}

/// A client that opens many connections at once is not taken for a guesser.
#[tokio::test]
async fn many_at_once_with_the_right_password_all_get_in() {
    let scene = Scene::new(LoginConfig::default()).await;
    scene.add("ada", Role::Reader).await;
    let began = Instant::now();
    let header = basic("ada", RIGHT);
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (logins, header) = (scene.logins.clone(), header.clone());
        all.spawn(async move { logins.authenticate(Some(&header), &peer(7)).await });
    }
    while let Some(one) = all.join_next().await {
        assert!(one.unwrap().is_ok());
    }
    assert!(began.elapsed().as_secs() < 10);
    let came = scene
        .log()
        .iter()
        .filter(|l| l["operation"] == "login")
        .count();
    assert_eq!(came, 1);
}

#[tokio::test(start_paused = true)]
async fn guessing_is_slow_and_locks_nobody_out() {
    let scene = Scene::new(LoginConfig::default()).await;
    scene.add("ada", Role::Administrator).await;
    scene.add("eve", Role::Reader).await;
    // She was here before the guesser came, from the same address.
    scene.login("ada", RIGHT).await.unwrap();
    let began = tokio::time::Instant::now();
    let guesses = (0..8).map(|number| scene.users_guess(number));
    for guess in futures::future::join_all(guesses).await {
        assert_eq!(guess, Err(Denied::Unknown));
    }
    assert!(
        began.elapsed() >= Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    // What comes on top of what waits already is sent away.
    let flood = (0..200).map(|number| scene.users_guess(100 + number));
    let flood = futures::future::join_all(flood);
    let during = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let began = tokio::time::Instant::now();
        assert!(scene.login("ada", RIGHT).await.is_ok());
        assert!(scene.login("eve", RIGHT).await.is_ok());
        let header = basic("ada", RIGHT);
        let elsewhere = scene.logins.authenticate(Some(&header), &peer(9)).await;
        assert!(elsewhere.is_ok());
        began.elapsed()
    };
    let (flood, waited) = futures::future::join(flood, during).await;
    let busy = |denied: &&_| matches!(denied, Err(Denied::Busy(_)));
    assert!(flood.iter().filter(busy).count() >= 150);
    // The one whom the address' other tries delay is delayed by little.
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    let log = scene.log();
    let refused: Vec<_> = log
        .iter()
        .filter(|line| line["result"] == "denied")
        .collect();
    assert_eq!(refused.len(), 100, "no more in one minute");
    assert!(refused.iter().all(|line| line["user"] == "ada"));
    assert!(refused.iter().any(|line| line["error"] == "too many tries"));
}

impl Scene {
    async fn users_guess(&self, number: u32) -> Result<Principal, Denied> {
        self.login("ada", &format!("guess number {number}")).await
    }
}

#[tokio::test]
async fn certificates_and_nobody_in_particular() {
    let config = LoginConfig {
        anonymous: Some(Role::Reader),
        certificates: BTreeMap::from([("Build Agent".into(), "ci".into())]),
        principals: BTreeMap::from([("db/host@REALM".into(), "ci".into())]),
    };
    let scene = Scene::new(config).await;
    scene.add("ci", Role::Operator).await;
    scene.add("ada", Role::Administrator).await;
    let showing = |name: &str| Peer {
        certificate: Some(name.into()),
        ..peer(7)
    };
    let of = |name: &str| scene.logins.by_principal(name, &peer(7));
    assert_eq!(of("db/host@REALM").unwrap().name.as_deref(), Some("ci"));
    for nobodys in ["db/host@OTHER", "ci", "ada@REALM"] {
        assert!(of(nobodys).is_err(), "{nobodys}");
    }
    for (name, user) in [
        ("Build Agent", Some("ci")),
        ("ada", Some("ada")),
        ("ci", Some("ci")),
        // Who says who they are is not nobody in particular.
        ("mallory", None),
    ] {
        let found = scene.logins.authenticate(None, &showing(name)).await;
        let found = found.ok().map(|found| found.name.unwrap());
        assert_eq!(found.as_deref(), user, "{name}");
    }
    // Credentials go before the certificate.
    let header = basic("ci", RIGHT);
    let both = scene
        .logins
        .authenticate(Some(&header), &showing("ada"))
        .await;
    assert_eq!(both.unwrap().name.as_deref(), Some("ci"));

    let nobody = scene.logins.authenticate(None, &peer(7)).await.unwrap();
    assert_eq!((nobody.name, nobody.role), (None, CimRole::Reader));
    assert_eq!(scene.login("ada", "wrong word").await, Err(Denied::Unknown));
    let log = scene.log();
    let mallory = log.iter().find(|line| line["user"] == "mallory").unwrap();
    assert_eq!(mallory["result"], "denied");
}

#[tokio::test]
async fn the_log_names_who_did_what_and_survives_rotation() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new(LoginConfig::default()).await;
    let path = log_of(&scene.directory);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    scene.add("ada", Role::Operator).await;
    let ada = scene.login("ada", RIGHT).await.unwrap();
    let caller = caller(&ada);
    let rotated = scene.directory.path().join("audit.log.1");
    // As soon as the lines so far are there.
    while std::fs::read_to_string(&path).unwrap().lines().count() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    std::fs::rename(&path, &rotated).unwrap();
    let engine = scene.engine.on_behalf_of(caller);
    let denied = scene.users.remove(&engine, "ada").await;
    assert!(denied.is_err());
    drop(engine);
    let directory = scene.directory.path().to_owned();
    let before = std::fs::read_to_string(&rotated).unwrap();
    let log = scene.log();
    assert!(!directory.exists());
    assert!(before.contains("\"operation\":\"add-user\"") && !before.contains("horse"));
    assert_eq!(log.len(), 1, "{log:?}");
    let line = &log[0];
    time::OffsetDateTime::parse(
        line["time"].as_str().unwrap(),
        &time::format_description::well_known::Rfc3339,
    )
    .unwrap();
    for (key, value) in [
        ("user", "ada"),
        ("role", "operator"),
        ("face", "test"),
        ("address", "10.0.0.7:4000"),
        ("operation", "remove-user"),
        ("object", "user \"ada\""),
        ("result", "denied"),
    ] {
        assert_eq!(line[key], value, "{key}");
    }
    assert!(line["error"].as_str().unwrap().contains("operator"));
}

/// A proof that holds for one NT hash.
struct Known(&'static str, [u8; 16]);

impl Proof for Known {
    fn user(&self) -> &str {
        self.0
    }

    fn holds(&self, nt_hash: &[u8; 16]) -> bool {
        self.1 == *nt_hash
    }
}

#[tokio::test]
async fn a_proof_is_taken_of_who_is_given_that() {
    let scene = Scene::new(LoginConfig::default()).await;
    let (engine, users) = (&scene.engine, &scene.users);
    scene.add("bob", Role::Reader).await;
    let added = users.add(engine, "ada", Role::Operator, RIGHT.into(), true);
    assert!(added.await.unwrap().ntlm);
    let digits = password::nt_hash(&Password::new(RIGHT.into()));
    let hash = *password::nt_hash_of(&digits).unwrap();
    let ada = Known("ada", hash);
    let logins = &scene.logins;
    let caller = logins.prove(&ada, &peer(1)).await.unwrap();
    assert_eq!(caller.name.as_deref(), Some("ada"));
    assert_eq!(caller.role, isochron_cim::Role::Operator);
    // Neither another proof, nor who has a hash of that kind not, nor nobody.
    for other in [
        Known("ada", [0; 16]),
        Known("bob", hash),
        Known("carl", hash),
        Known("", hash),
        Known("no name", hash),
    ] {
        let refused = logins.prove(&other, &peer(1)).await;
        assert_eq!(refused.unwrap_err(), Denied::Unknown);
    }
    // Who was let in has the role that they have now.
    users.set_role(engine, "ada", Role::Reader).await.unwrap();
    let now = logins.proved(&ada, &peer(1)).unwrap();
    assert_eq!(now.role, isochron_cim::Role::Reader);
    // Another password is without NTLM unless it is asked for.
    let set = users.set_password(engine, "ada", RIGHT.into(), false);
    assert!(!set.await.unwrap().ntlm);
    assert!(logins.proved(&ada, &peer(1)).is_err());
    // It is kept as the rest is.
    let set = users.set_password(engine, "ada", RIGHT.into(), true);
    assert!(set.await.unwrap().ntlm);
    let again = Users::open(scene.world.daemon().store()).await.unwrap();
    assert_eq!(again.get("ada").unwrap().nt_hash.as_deref(), Some(&*digits));
    let lines = scene.log();
    let refused = lines.iter().filter(|line| {
        let error = line["error"].as_str().unwrap_or_default();
        error.contains("without NTLM")
    });
    assert_eq!(refused.count(), 5, "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn proofs_are_paced_as_passwords_are() {
    let scene = Scene::new(LoginConfig::default()).await;
    scene.add("ada", Role::Reader).await;
    let wrong = Known("ada", [0; 16]);
    let began = tokio::time::Instant::now();
    for _ in 0..8 {
        let _ = scene.logins.prove(&wrong, &peer(1)).await;
    }
    // Five are free, then one a second.
    assert_eq!(began.elapsed().as_secs(), 3);
}
