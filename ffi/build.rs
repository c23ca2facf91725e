//! Gives the shared library its SONAME: programs that were linked with one 0.x go on with that 0.x only.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        let series = match (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR")) {
            ("0", minor) => format!("0.{minor}"),
            (major, _) => major.to_owned(),
        };
        // Not `rustc-cdylib-link-arg`, which libraries that contain this one would be given as well. Programs have no
        // use for it, and do not mind.
        println!("cargo:rustc-link-arg=-Wl,-soname,libkoala.so.{series}");
    }
}
