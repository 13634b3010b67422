//! Links the binary at a fixed address. A lab is two dozen processes of this one program, and each would
//! first write some 600 kB of its own to relocate it: memory no two of them share, and time at every start.

fn main() {
    println!("cargo::rustc-link-arg-bins=-no-pie");
    println!("cargo::rerun-if-changed=build.rs");
}
