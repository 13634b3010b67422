//! Links the binary at a fixed address, and puts the exercises of `labs/` into it.
//!
//! A lab is two dozen processes of this one program, and each would first write some 600 kB of its own to
//! relocate it: memory no two of them share, and time at every start.

use std::fmt::Write;
use std::path::Path;

fn main() {
    println!("cargo::rustc-link-arg-bins=-no-pie");
    println!("cargo::rerun-if-changed=build.rs");
    let out = std::env::var("OUT_DIR").expect("cargo says where");
    std::fs::write(Path::new(&out).join("labs.rs"), labs()).expect("cargo's own directory can be written");
}

/// The table of `labs/NN-slug/`, in order.
fn labs() -> String {
    println!("cargo::rerun-if-changed=labs");
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where");
    let entries = std::fs::read_dir(Path::new(&root).join("labs")).expect("labs/ is there").flatten();
    let mut folders: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    let mut table = String::from("static LABS: &[Folder] = &[\n");
    for folder in folders {
        println!("cargo::rerun-if-changed={}", folder.display());
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = |file: &str| format!("include_str!({:?})", folder.join(file));
        writeln!(
            table,
            "    Folder {{ name: {name:?}, readme: {}, yaml: {}, solution: {} }},",
            text("README.md"),
            text("lab.yaml"),
            text("solution.sh")
        )
        .expect("a string takes everything");
    }
    table + "];\n"
}
