//! `isochron bench cut`, `soak` and `export`, on real guests, and `isochron bench cim` in
//! short form: their form, and what must hold whatever the times are. None is asserted here.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A short directory: below it are unix sockets.
fn directory() -> TempDir {
    tempfile::Builder::new()
        .prefix("b")
        .rand_bytes(5)
        .tempdir_in("/var/tmp")
        .unwrap()
}

fn bench(temporary: &TempDir, arguments: &str) -> Value {
    serde_json::from_slice(&printed(temporary, &format!("--json {arguments}"))).unwrap()
}

/// What `isochron bench` prints.
fn printed(temporary: &TempDir, arguments: &str) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_isochron"))
        .arg("bench")
        .args(arguments.split_whitespace())
        .env("TMPDIR", temporary.path())
        .current_dir(temporary)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    output.stdout
}

fn files(directory: &Path) -> Vec<String> {
    let entries = directory.read_dir().unwrap().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn at(value: &Value, path: &str) -> i64 {
    value.pointer(path).and_then(Value::as_i64).unwrap()
}

#[test]
fn a_cut_is_measured_beside_floor_and_scripts() {
    let temporary = directory();
    let found = bench(
        &temporary,
        "cut --members 1,2 --load ring --page-cache clean --rounds 2 --memory 128 \
         --plot plot.svg --trace trace.json",
    );
    let combinations = found["combinations"].as_array().unwrap();
    let of = |how: &str, kind: &str, members: u8| {
        let mut all = combinations.iter().filter(|found| {
            (&found["how"], &found["type"], &found["members"])
                == (&how.into(), &kind.into(), &members.into())
        });
        all.next()
            .unwrap_or_else(|| panic!("{how} {kind} {members}"))
    };
    for members in [1, 2] {
        for kind in ["recovery", "standard"] {
            let ours = of("isochron", kind, members);
            assert_eq!((at(ours, "/rounds"), at(ours, "/without_window")), (2, 0));
            assert!(at(ours, "/common_window_us/worst") >= 0, "{ours}");
            let (pause, group) = (
                at(ours, "/pause_us/worst"),
                at(ours, "/group_pause_us/worst"),
            );
            assert!(pause > 0 && group >= pause, "{ours}");
            // A stopped guest writes nothing: who watches it sees that, too.
            assert!(at(ours, "/gap_us/worst") >= pause, "{ours}");
            assert!(at(ours, "/create_us/median") > at(ours, "/group_pause_us/median"));
        }
        for (how, kind) in [
            ("loop", "recovery"),
            ("threads", "recovery"),
            ("stopped-save", "standard"),
        ] {
            assert!(at(of(how, kind, members), "/group_pause_us/median") > 0);
        }
    }
    assert!(at(of("floor", "recovery", 1), "/pause_us/median") > 0);
    assert_eq!(combinations.len(), 11);
    assert!(found["goals"].as_array().unwrap().is_empty(), "not of two");

    let plot = std::fs::read_to_string(temporary.path().join("plot.svg")).unwrap();
    assert!(
        plot.starts_with("<svg") && plot.contains("isochron, recovery"),
        "{plot}"
    );
    let trace = std::fs::read(temporary.path().join("trace.json")).unwrap();
    a_cut_is_on_the_timeline(&serde_json::from_slice(&trace).unwrap());
    assert_eq!(files(temporary.path()), ["plot.svg", "trace.json"]);
}

/// The last cut of a trace, of two guests with memory: the engine's steps in their
/// order, and in each machine's window nothing but what a window is for.
fn a_cut_is_on_the_timeline(trace: &Value) {
    let events = trace["traceEvents"].as_array().unwrap();
    let process = |name: &str| {
        let named = events
            .iter()
            .find(|event| event["name"] == "process_name" && event["args"]["name"] == name);
        named.unwrap_or_else(|| panic!("{name} is not there"))["pid"].clone()
    };
    // Begin and end of the last one of that name in that time.
    let within = |process: &Value, kind: &str, name: &str, time: (f64, f64)| {
        let all = events
            .iter()
            .filter(|e| &e["pid"] == process && e["cat"] == kind && e["name"] == name);
        let times = all.map(|event| {
            let began = event["ts"].as_f64().unwrap();
            (began, began + event["dur"].as_f64().unwrap_or(0.0))
        });
        times
            .filter(|(began, _)| (time.0..=time.1).contains(began))
            .max_by(|a, b| a.0.total_cmp(&b.0))
    };
    let engine = process("engine");
    let always = (0.0, f64::INFINITY);
    let whole = within(&engine, "steps", "create snapshot", always).unwrap();
    let step =
        |name| within(&engine, "steps", name, whole).unwrap_or_else(|| panic!("no step {name}"));
    let window = step("window");
    let order = [
        "create overlays",
        "prepare",
        "guard",
        "flush",
        "window",
        "disarm",
        "memory",
        "commit",
    ];
    for pair in order.windows(2) {
        assert!(step(pair[0]).1 <= step(pair[1]).0, "{pair:?}");
        assert!(
            whole.0 <= step(pair[0]).0 && step(pair[1]).1 <= whole.1,
            "{pair:?}"
        );
    }
    let mut stops = Vec::new();
    let mut resumes = Vec::new();
    for machine in ["cut-0", "cut-1"] {
        let machine = process(machine);
        // Within the cut: destroying the snapshot stops a machine again.
        let command = |name| within(&machine, "QMP", name, whole).unwrap();
        let event = |name| within(&machine, "events", name, whole).unwrap().0;
        let (stop, transaction, migrate) =
            (command("stop"), command("transaction"), command("migrate"));
        assert!(
            window.0 <= stop.0 && stop.1 <= transaction.0,
            "stop, then swap"
        );
        assert!(transaction.1 <= migrate.0, "swap, then memory");
        assert!(command("blockdev-add").1 <= window.0, "opened beforehand");
        assert!(
            (stop.0..=stop.1).contains(&event("STOP")),
            "QEMU's own word"
        );
        stops.push(event("STOP"));
        resumes.push(event("RESUME"));
    }
    let last_stop = stops.into_iter().fold(0.0, f64::max);
    assert!(resumes.iter().all(|resume| *resume >= last_stop));
}

#[test]
fn idle_guests_and_a_dirty_page_cache_are_measured() {
    let temporary = directory();
    let found = bench(
        &temporary,
        "cut --members 2 --load idle --types recovery --page-cache dirty --rounds 1 --memory 128 \
         --only-us",
    );
    let combinations = found["combinations"].as_array().unwrap();
    assert_eq!(combinations.len(), 1);
    assert_eq!(at(&combinations[0], "/without_window"), 0);
    assert_eq!(
        (&combinations[0]["load"], &combinations[0]["page_cache"]),
        (&"idle".into(), &"dirty".into())
    );
    assert_eq!(files(temporary.path()), [""; 0]);
}

/// Where libvirt is installed: the project does not install it for its tests.
#[test]
fn a_script_through_libvirt_is_measured_or_refused() {
    let temporary = directory();
    let arguments = "cut --members 2 --load ring --types recovery --page-cache clean --rounds 1 \
                     --memory 128 --libvirt";
    let python = Command::new("/usr/bin/python3")
        .args(["-c", "import libvirt"])
        .output()
        .is_ok_and(|output| output.status.success());
    let driver = ["lib/x86_64-linux-gnu", "lib", "lib64"].iter().any(|lib| {
        let file = format!("/usr/{lib}/libvirt/connection-driver/libvirt_driver_qemu.so");
        Path::new(&file).exists()
    });
    let installed = python && driver;
    if installed {
        let found = bench(&temporary, arguments);
        let combinations = found["combinations"].as_array().unwrap();
        let libvirt = combinations.iter().find(|found| found["how"] == "libvirt");
        let libvirt = libvirt.unwrap();
        assert_eq!((at(libvirt, "/members"), at(libvirt, "/rounds")), (2, 1));
        assert!(at(libvirt, "/common_window_us/worst") > 0, "{libvirt}");
        assert!(at(libvirt, "/gap_us/worst") >= at(libvirt, "/pause_us/worst"));
    } else {
        let output = Command::new(env!("CARGO_BIN_EXE_isochron"))
            .arg("bench")
            .args(arguments.split_whitespace())
            .env("TMPDIR", temporary.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("apt-get install"), "{said}");
    }
    assert_eq!(files(temporary.path()), [""; 0]);
}

#[test]
fn what_cannot_be_measured_is_refused_at_once() {
    let temporary = directory();
    for arguments in [
        "--members 0",
        "--load heavy",
        "--rounds 0",
        "--plot no/such/plot.svg",
        "--libvirt --only-us",
        "--libvirt --types standard",
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_isochron"))
            .args(["bench", "cut"])
            .args(arguments.split(' '))
            .current_dir(&temporary)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}");
    }
}

#[test]
fn a_cim_server_is_asked_by_many_and_left_as_it_was() {
    let temporary = directory();
    let found = bench(
        &temporary,
        "cim --connections 1,3 --seconds 1 --instances 1200",
    );
    let rates = found["rates"].as_array().unwrap();
    for connections in [1, 3] {
        let of = |operation: &str| {
            let mut all = rates.iter().filter(|rate| {
                rate["operation"] == operation && rate["connections"] == connections
            });
            all.next()
                .unwrap_or_else(|| panic!("{operation} {connections}"))
        };
        for operation in ["HTTP floor", "GetInstance, 1 kB", "GetClass"] {
            let rate = of(operation);
            assert!(rate["per_second"].as_f64().unwrap() > 0.0, "{rate}");
            assert!(at(rate, "/median_us") <= at(rate, "/worst_us"), "{rate}");
        }
    }
    let listings = found["listings"].as_array().unwrap();
    let bytes = |n: usize| at(&listings[n], "/bytes");
    // Instances of about 1 kB are larger than their names; pulled they are the same.
    assert!(bytes(0) > 1200 * 900 && bytes(0) > 4 * bytes(1), "{found}");
    assert!(bytes(2) > 1200 * 900, "{found}");
    assert_eq!(files(temporary.path()), [""; 0]);
}

/// A disk of 64 MiB, of which 32 are data and 11 blocks of 64 KiB changed.
#[test]
fn an_export_is_measured_beside_qemu_img() {
    let temporary = directory();
    let found = bench(&temporary, "export --size 64 --rounds 1");
    assert_eq!((at(&found, "/size_mib"), at(&found, "/rounds")), (64, 1));
    assert_eq!(found["changed"], 0.01);
    let ways = found["ways"].as_array().unwrap();
    let names: Vec<_> = ways
        .iter()
        .map(|way| way["way"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["convert", "convert-flushed", "full", "difference"]);
    for (way, name) in ways.iter().zip(names) {
        assert!(at(way, "/ms/median") <= at(way, "/ms/worst"), "{way}");
        let (data, ours) = match name {
            "difference" => (11 << 16, true),
            name => (32 << 20, name == "full"),
        };
        let more = at(way, "/bytes") - data;
        assert!((0..2 << 20).contains(&more), "{way}");
        for memory in ["memory_kib", "reader_kib"] {
            assert!(ours || way[memory].is_null(), "{way}");
        }
        assert!(!ours || at(way, "/memory_kib") > 0, "{way}");
    }
    for gaps in ["usual_us", "export_us"] {
        let gaps = found["guest"][gaps].as_array().unwrap();
        assert!(gaps.len() == 1 && gaps[0].as_u64() > Some(0), "{found}");
    }
    // The same for people, without a guest.
    let table = printed(&temporary, "export --size 64 --rounds 1 --no-guest");
    let table = String::from_utf8(table).unwrap();
    let written = |way: &str| {
        let line = table.lines().find(|line| line.starts_with(way)).unwrap();
        assert!(line.contains(" ms  "), "{table}");
        line.split("  ")
            .filter(|cell| cell.ends_with("MiB"))
            .count()
    };
    // What was written, and of ours the memory of two processes, if they were seen.
    for way in [
        "qemu-img convert, nothing flushed",
        "qemu-img convert -t writeback",
    ] {
        assert_eq!(written(way), 1, "{table}");
    }
    for way in ["full export, flushed", "difference of 1 %, flushed"] {
        assert!(written(way) >= 2, "{table}");
    }
    assert!(table.contains("A disk of 64 MiB, median of 1."), "{table}");
    assert!(!table.contains("writing guest"), "{table}");
    assert_eq!(files(temporary.path()), [""; 0]);
}

#[test]
fn a_ws_management_server_is_asked_and_its_goal_told() {
    let temporary = directory();
    let found = bench(&temporary, "wsman --connections 1,2 --seconds 1");
    assert_eq!(found["floor"], "Identify");
    let rates = found["rates"].as_array().unwrap();
    for connections in [1, 2] {
        for operation in ["Identify", "Get, service", "Enumerate, systems"] {
            let mut of = rates.iter().filter(|rate| {
                rate["operation"] == operation && rate["connections"] == connections
            });
            let rate = of.next().unwrap_or_else(|| panic!("{operation}: {found}"));
            assert!(rate["per_second"].as_f64().unwrap() > 0.0, "{rate}");
        }
    }
    let goal = &found["goal"];
    assert_eq!(goal["operation"], "Get, service");
    let single = rates
        .iter()
        .find(|rate| rate["operation"] == "Get, service");
    let ratio = single.unwrap()["per_second"].as_f64().unwrap() / 22.0;
    assert!(
        (goal["ratio"].as_f64().unwrap() - ratio).abs() < 1e-6,
        "{goal}"
    );
    assert_eq!(goal["reached"], ratio >= 10.0, "{goal}");
    assert_eq!(files(temporary.path()), [""; 0]);
}

#[test]
fn a_soak_finds_everything_as_it_was() {
    let temporary = directory();
    let found = bench(&temporary, "soak --minutes 1 --rings 2 --seed 3");
    let counts = found["counts"].as_array().unwrap();
    assert!(counts.len() >= 2);
    for count in counts {
        assert_eq!(count["files"], counts[0]["files"]);
        assert_eq!(count["records"], counts[0]["records"]);
        // The daemon and two guests.
        assert_eq!(at(count, "/processes"), 3);
    }
    assert!(at(&found, "/taken") >= 4 && at(&found, "/taken") == at(&found, "/destroyed"));
    assert!(at(&found, "/applied") >= 1 && at(&found, "/longest_pause_us") > 0);
    assert_eq!(files(temporary.path()), [""; 0]);
}
