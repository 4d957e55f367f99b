//! Every operation, with a fault, a death of the daemon or a loss of power at
//! every call of a port that it makes, before the call's effect and after it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use isochron_engine::Engine;
use isochron_engine::model::{Consistency, Power, SnapshotKind};
use isochron_sim::{Call, Daemon, Fault, When};

use crate::scene::{Op, Scene, Written, alone, open};
use crate::verdict::Happened;

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Fault(Fault),
    Death,
    PowerLoss,
}

impl Blow {
    /// What to do at the call.
    fn strike(self, scene: &Scene, when: When) -> impl FnMut(&Daemon, &Call) + Send + 'static {
        let (died, over) = (scene.died.clone(), scene.over.clone());
        let machines: Vec<_> = scene.machines.iter().map(|member| member.id).collect();
        move |daemon, call| match self {
            Self::Fault(fault) => daemon
                .world()
                .fail_next(call.point, call.machine, when, fault),
            Self::Death => {
                daemon.crash();
                died.notify_one();
            }
            Self::PowerLoss => {
                over.store(true, Ordering::Relaxed);
                daemon.crash();
                for machine in &machines {
                    daemon.world().kill_process(*machine);
                }
                died.notify_one();
            }
        }
    }
}

/// A new life of the daemon, and another one where it dies in opening.
async fn reopened(scene: &Scene) -> Result<(Daemon, Engine), String> {
    for _ in 0..5 {
        let daemon = scene.world.daemon();
        let engine = tokio::select! {
            engine = open(&daemon, scene.state.path()) => engine,
            () = tokio::time::sleep(Duration::from_secs(600)) => {
                scene.world.release();
                daemon.crash();
                continue;
            }
        };
        if let Ok(engine) = engine {
            return Ok((daemon, engine));
        }
        daemon.crash();
    }
    Err("it does not open".to_owned())
}

/// One run. A call without an effect is struck only by its failure: for a death at
/// it the world is what it is at the next call, and how long to wait for an
/// answer is its driver's to say.
/// `None` if the operation makes fewer calls.
async fn strike(op: Op, n: usize, when: When, blow: Blow) -> Option<Result<bool, String>> {
    let scene = Scene::new(op).await;
    let fails = matches!(blow, Blow::Fault(Fault::Error | Fault::Timeout));
    let with_questions = fails && when == When::Before;
    let met = scene.at_call(n, when, with_questions, blow.strike(&scene, when));
    let ended = scene.perform().await;
    if !met.load(Ordering::Relaxed) {
        return None;
    }
    scene.over.store(true, Ordering::Relaxed);
    let happened = match blow {
        Blow::PowerLoss => Happened::PowerLoss,
        _ => Happened::Nothing,
    };
    let mut left = false;
    let judged = async {
        ended?;
        if !scene.daemon.crashed() {
            return scene.verdict(&scene.engine, happened).await;
        }
        if blow == Blow::Death && !matches!(op, Op::Apply(_)) {
            let stands = |id| scene.world.power(id) != Power::Running;
            let [subject, other] = scene.pair();
            // A machine that is restored stands until all is recorded.
            if stands(other) || stands(subject) && !matches!(op, Op::Save | Op::Restore) {
                return Err("it stands, and nobody is there".to_owned());
            }
            left = op == Op::Save && stands(subject);
            scene.guests.exchange(&scene.world, scene.pair());
        }
        let (_daemon, engine) = reopened(&scene).await?;
        let done = scene.verdict(&engine, happened).await?;
        match left && !done {
            true => Err("it stood, nobody was there, and it is not saved".to_owned()),
            false => Ok(done),
        }
    };
    Some(judged.await)
}

/// Strikes at every call of the operation. Prints how many runs there were.
fn strike_everywhere(op: Op) {
    use Fault::{Error, Hang, Timeout};
    let blows = [
        Blow::Fault(Error),
        Blow::Fault(Hang),
        Blow::Death,
        Blow::PowerLoss,
    ];
    let (mut runs, mut done, mut failures) = (0, 0, Vec::new());
    for blow in blows {
        for when in [When::Before, When::After] {
            for n in 1.. {
                let blow = match blow {
                    Blow::Fault(Error) if n % 2 == 0 => Blow::Fault(Timeout),
                    blow => blow,
                };
                let Some(verdict) = alone(strike(op, n, when, blow)) else {
                    break;
                };
                runs += 1;
                match verdict {
                    Ok(true) => done += 1,
                    Ok(false) => {}
                    Err(error) => {
                        failures.push(format!("{op:?}, {blow:?} {when:?} call {n}: {error}"))
                    }
                }
            }
        }
    }
    println!(
        "{op:?}: {runs} runs, {done} of them done, {} failures",
        failures.len()
    );
    let shown = failures.iter().take(12).cloned().collect::<Vec<_>>();
    assert!(
        failures.is_empty(),
        "{} of {runs}:\n{}",
        failures.len(),
        shown.join("\n")
    );
    assert!(
        runs > 50 && done > 0 && done < runs,
        "{runs} runs, {done} done"
    );
}

/// Two blows in one run, the second perhaps at the taking back of the first.
async fn strike_twice(seed: u64) -> Result<bool, String> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let op = OPERATIONS[random(OPERATIONS.len())];
    let scene = Scene::new(op).await;
    let mut power_lost = false;
    let mut n = 0;
    for most in [120, 60] {
        let when = [When::Before, When::After][random(2)];
        let blow = [
            Blow::Fault(Fault::Error),
            Blow::Fault(Fault::Timeout),
            Blow::Fault(Fault::Hang),
            Blow::Death,
            Blow::PowerLoss,
        ][random(5)];
        // The second loss of power would find the machines that came back.
        let blow = if power_lost && blow == Blow::PowerLoss {
            Blow::Death
        } else {
            blow
        };
        power_lost |= blow == Blow::PowerLoss;
        n += 1 + random(most);
        scene.at_call(n, when, true, blow.strike(&scene, when));
    }
    let context = format!("{op:?}");
    let judged = async {
        scene.perform().await?;
        let happened = if power_lost {
            Happened::PowerLoss
        } else {
            Happened::Twice
        };
        let (mut daemon, mut engine) = (scene.daemon.clone(), scene.engine.clone());
        // The second blow may fall on what goes on in the background.
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(90)).await;
            scene.world.release();
            if daemon.crashed() {
                (daemon, engine) = reopened(&scene).await?;
            }
        }
        scene.over.store(true, Ordering::Relaxed);
        scene.verdict(&engine, happened).await
    };
    judged.await.map_err(|error| format!("{context}: {error}"))
}

#[test]
fn struck_twice_at_random() {
    const RUNS: u64 = 300;
    let failures: Vec<_> = (0..RUNS)
        .filter_map(|seed| {
            let verdict = alone(strike_twice(seed));
            verdict.err().map(|error| format!("seed {seed}, {error}"))
        })
        .collect();
    println!("{RUNS} runs, {} failures", failures.len());
    let shown = failures.iter().take(12).cloned().collect::<Vec<_>>();
    assert!(
        failures.is_empty(),
        "{}:\n{}",
        failures.len(),
        shown.join("\n")
    );
}

const OPERATIONS: [Op; 19] = [
    Op::Create(SnapshotKind::Recovery, Consistency::Crash),
    Op::Create(SnapshotKind::Recovery, Consistency::Application),
    Op::Create(SnapshotKind::Standard, Consistency::Crash),
    Op::Apply(SnapshotKind::Standard),
    Op::Apply(SnapshotKind::Recovery),
    Op::Destroy(0),
    Op::Destroy(1),
    Op::Destroy(2),
    Op::Save,
    Op::Restore,
    Op::CreatePoint(Consistency::Crash),
    Op::CreatePoint(Consistency::Application),
    Op::Convert(0),
    Op::Convert(2),
    Op::RemoveData,
    Op::DestroyPoint,
    Op::Export(Written::Full),
    Op::Export(Written::Difference),
    Op::Export(Written::Merged),
];

macro_rules! everywhere {
    ($($name:ident: $op:literal;)*) => {$(
        #[test]
        fn $name() {
            strike_everywhere(OPERATIONS[$op]);
        }
    )*};
}

everywhere! {
    struck_while_a_recovery_snapshot_is_taken: 0;
    struck_while_file_systems_are_frozen: 1;
    struck_while_a_standard_snapshot_is_taken: 2;
    struck_while_a_standard_snapshot_is_applied: 3;
    struck_while_a_recovery_snapshot_is_applied: 4;
    struck_while_the_oldest_snapshot_is_destroyed: 5;
    struck_while_a_snapshot_in_the_middle_is_destroyed: 6;
    struck_while_the_newest_snapshot_is_destroyed: 7;
    struck_while_a_machine_is_saved: 8;
    struck_while_a_machine_is_restored: 9;
    struck_while_a_reference_point_is_created: 10;
    struck_while_a_consistent_reference_point_is_created: 11;
    struck_while_the_oldest_snapshot_is_converted: 12;
    struck_while_the_newest_snapshot_is_converted: 13;
    struck_while_a_points_data_is_removed: 14;
    struck_while_a_point_is_destroyed: 15;
    struck_while_a_snapshot_is_exported_in_full: 16;
    struck_while_a_difference_is_exported: 17;
    struck_while_a_difference_is_merged: 18;
}
