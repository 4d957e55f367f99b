//! The manifest of an export, which may come from anywhere.
#![no_main]

use isochron_backup::manifest::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(manifest) = Manifest::parse(text) else {
        return;
    };
    // What names a file of the export leads nowhere else.
    for file in manifest.files() {
        let inside = std::path::Path::new("/export").join(&file.file);
        assert_eq!(inside.parent(), Some(std::path::Path::new("/export")));
    }
});
