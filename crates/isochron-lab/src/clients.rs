//! CIM clients by other people: where they are on this machine.

use anyhow::{Context, Result};
use std::env;
use std::path::{Path, PathBuf};

/// A Python interpreter that can `import pywbem`: `ISOCHRON_PYTHON`, else the
/// virtual environment `target/venv` that `make venv` prepares.
///
/// # Errors
/// When it is not there.
pub fn python() -> Result<PathBuf> {
    let path = match env::var_os("ISOCHRON_PYTHON") {
        Some(path) if !path.is_empty() => path.into(),
        _ => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv/bin/python"),
    };
    // Not canonical: an environment's interpreter is a link, and knows its
    // environment by the name that it is called by.
    path.exists().then_some(()).with_context(|| {
        format!(
            "{} is missing: run `make venv` in the source tree",
            path.display()
        )
    })?;
    Ok(path)
}

/// The command line client `pywbemcli` of pywbemtools, beside [`python`].
///
/// # Errors
/// When it is not there.
pub fn pywbemcli() -> Result<PathBuf> {
    let path = python()?.with_file_name("pywbemcli");
    path.exists().then_some(()).with_context(|| {
        format!(
            "{} is missing: run `make venv` in the source tree",
            path.display()
        )
    })?;
    Ok(path)
}

/// The sources of pywbem, with its own tests of CIM servers in `tests`: in
/// `target/pywbem`, where `make venv` puts them.
///
/// # Errors
/// When they are not there.
pub fn pywbem_sources() -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/pywbem");
    path.canonicalize().with_context(|| {
        format!(
            "{} is missing: run `make venv` in the source tree",
            path.display()
        )
    })
}

/// The command line client `wbemcli` of sblim.
///
/// # Errors
/// When it is not installed.
pub fn wbemcli() -> Result<PathBuf> {
    on_path("wbemcli").context("wbemcli is not installed: the package is sblim-wbemcli")
}

/// Node.js.
///
/// # Errors
/// When it is not installed.
pub fn node() -> Result<PathBuf> {
    on_path("node").context("node is not installed: the package is nodejs")
}

/// Where Node.js finds Intel's generator of WS-Management messages: in
/// `target/npm`, where `make venv` puts it.
///
/// # Errors
/// When it is not there.
pub fn node_modules() -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/npm/node_modules");
    path.canonicalize().with_context(|| {
        format!(
            "{} is missing: run `make venv` in the source tree",
            path.display()
        )
    })
}

/// A Python interpreter that can `import wsmanio`: in `target/wsmanio`, where
/// `make venv` puts it if there is a Python that is new enough.
pub fn wsmanio() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/wsmanio/bin/python");
    path.exists().then_some(path)
}

fn on_path(program: &str) -> Option<PathBuf> {
    env::var_os("PATH")
        .iter()
        .flat_map(env::split_paths)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn every_client_can_be_run() {
        let import = Command::new(python().unwrap())
            .args(["-c", "import pywbem"])
            .status();
        assert!(import.unwrap().success());
        let version = Command::new(pywbemcli().unwrap()).arg("--version").output();
        assert!(version.unwrap().status.success());
        // It has no option that only says its version; --help ends with 1.
        let help = Command::new(wbemcli().unwrap()).arg("--help").output();
        let help = help.unwrap();
        let said = [help.stdout, help.stderr].concat();
        assert!(String::from_utf8_lossy(&said).contains("wbemcli"));
    }
}
