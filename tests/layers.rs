//! The layers of the crates: a folder imports only from folders above it in its crate's table, never through lib.rs, and
//! no files import each other in a circle. What code names is what counts, by `use` or by a whole path; unit tests may
//! name anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A crate: where its modules are, and its folders and single files from the lowest layer to the highest.
struct Crate {
    /// A folder, and the name of the module that it is; an empty name for the folder of lib.rs itself.
    folders: &'static [(&'static str, &'static str)],
    layers: &'static [&'static str],
}

const CORE: Crate = Crate {
    folders: &[("src", ""), ("backends", "backends"), ("backends/cuda", "cuda")],
    layers: &[
        "types",
        "simd",
        "backends",
        "dispatch",
        "passes",
        "methods",
        "step",
        "kernel",
        "optimizer",
        "checkpoint",
        "cuda",
    ],
};

const FFI: Crate = Crate { folders: &[("ffi/src", "")], layers: &["border", "words", "kernel", "optimizer", "cuda"] };

#[test]
fn the_core_is_in_layers() {
    check(&CORE);
}

#[test]
fn the_c_abi_is_in_layers() {
    check(&FFI);
}

fn check(of: &Crate) {
    let files = read(of);
    let known: BTreeSet<Module> = files.keys().cloned().collect();
    let mut troubles = Vec::new();
    let mut imports = BTreeMap::new();
    for (module, file) in &files {
        let found = imports_of(module, &file.code, &known);
        troubles.extend(found.iter().filter_map(|to| trouble(of, module, to, &files)));
        imports.insert(module.clone(), found);
    }
    if let Some(circle) = circle(&imports) {
        let names: Vec<_> = circle.iter().map(|module| files[module].name.as_str()).collect();
        troubles.push(format!("these files import each other in a circle: {}", names.join(" → ")));
    }
    assert!(troubles.is_empty(), "{} imports that must not be:\n{}", troubles.len(), troubles.join("\n"));
}

/// The names from the crate's root on: `["kernel", "list"]`; none for lib.rs.
type Module = Vec<String>;

struct File {
    /// For messages.
    name: String,
    code: Vec<String>,
}

/// What is wrong with an import, if anything.
fn trouble(of: &Crate, from: &Module, to: &Module, files: &BTreeMap<Module, File>) -> Option<String> {
    let name = &files[from].name;
    let folder = from.first()?;
    let layer = |module: &str| of.layers.iter().position(|layer| *layer == module);
    let Some(own) = layer(folder) else { return Some(format!("{name}: {folder} is in no layer of the table")) };
    let Some(other) = to.first() else { return Some(format!("{name} imports through lib.rs")) };
    match layer(other) {
        Some(other) if other <= own => None,
        _ => Some(format!("{name} imports from {}, which is not below {folder}", files[to].name)),
    }
}

/// All files of a crate, by their modules.
fn read(of: &Crate) -> BTreeMap<Module, File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = BTreeMap::new();
    for (folder, module) in of.folders {
        let others = of.folders.iter().map(|(other, _)| root.join(other)).filter(|other| *other != root.join(folder));
        let skipped: Vec<_> = others.collect();
        let names = if module.is_empty() { vec![] } else { vec![(*module).to_owned()] };
        for (module, path) in rust_files(&root.join(folder), &names, &skipped) {
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            files.insert(module, File { name, code: without_tests(&tokens(&text)) });
        }
    }
    assert!(files.len() > 20, "there are only {} files", files.len());
    files
}

fn rust_files(folder: &Path, names: &Module, skipped: &[PathBuf]) -> Vec<(Module, PathBuf)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let own = || [names.as_slice(), &[stem.to_owned()]].concat();
        if path.is_dir() && !skipped.contains(&path) {
            found.extend(rust_files(&path, &own(), skipped));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((if ["mod", "lib"].contains(&stem) { names.clone() } else { own() }, path));
        }
    }
    found
}

/// Names, `::`, and single characters, without comments, texts and spaces.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            end_of_text(rest)
        } else if let Some(length) = length_of_character(rest) {
            length
        } else {
            let length = match rest.find(|c| !is_name(c)).unwrap_or(rest.len()) {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                length => length,
            };
            if !first.is_whitespace() {
                tokens.push(rest[..length].to_owned());
            }
            length
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of a text in quotes.
fn end_of_text(text: &str) -> usize {
    let mut escaped = false;
    for (place, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return place + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

/// The length of a character in quotes, which a lifetime is not.
fn length_of_character(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    let escape = inside.starts_with('\\');
    let length = if escape { 1 + inside[1..].chars().next()?.len_utf8() } else { inside.chars().next()?.len_utf8() };
    let end = inside[length..].find('\'')?;
    (escape && end < 8 || end == 0).then_some(1 + length + end + 1)
}

/// The tokens without the items under `#[cfg(test)]`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut place = 0;
    while place < tokens.len() {
        if !tokens[place..].iter().take(TEST.len()).eq(TEST.iter()) {
            kept.push(tokens[place].clone());
            place += 1;
            continue;
        }
        let mut depth = 0;
        while let Some(token) = tokens.get(place) {
            depth += i32::from(token == "{") - i32::from(token == "}");
            place += 1;
            if depth == 0 && (token == "}" || token == ";") {
                break;
            }
        }
    }
    kept
}

/// The modules that the code of a module names, without itself. Lib.rs stands for what is in no module.
fn imports_of(module: &Module, code: &[String], known: &BTreeSet<Module>) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    for place in 0..code.len() {
        let starts = code.get(place + 1).is_some_and(|next| next == "::")
            && (place == 0 || code[place - 1] != "::" || place > 1 && !is_name(&code[place - 2]));
        if starts {
            let mut paths = Vec::new();
            take_paths(&code[place..], Vec::new(), &mut paths);
            found.extend(paths.iter().filter_map(|path| module_of(module, path, known)));
        }
    }
    found.remove(module);
    found
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Reads a path, or a tree of paths in braces, and returns how many tokens that were.
fn take_paths(code: &[String], mut path: Module, paths: &mut Vec<Module>) -> usize {
    let mut place = 0;
    loop {
        match code.get(place).map(String::as_str) {
            Some("{") => loop {
                place += 1;
                if code.get(place).is_none_or(|token| token == "}") {
                    return place + 1;
                }
                place += take_paths(&code[place..], path.clone(), paths);
                // Past the new name behind `as`.
                place += code[place..].iter().take_while(|token| !matches!(token.as_str(), "," | "}")).count();
                if code.get(place).is_none_or(|token| token == "}") {
                    return place + 1;
                }
            },
            Some(token) if is_name(token) => path.push(token.to_owned()),
            _ => break,
        }
        place += 1;
        if code.get(place).is_none_or(|token| token != "::") {
            break;
        }
        place += 1;
    }
    paths.push(path);
    place
}

/// The module of the crate that a path leads to; none if it leads out of the crate.
fn module_of(from: &Module, path: &Module, known: &BTreeSet<Module>) -> Option<Module> {
    let mut to = from.clone();
    let mut names = path.iter().peekable();
    match path.first()?.as_str() {
        "crate" => to.clear(),
        "self" | "super" => {}
        child if known.contains(&[from.as_slice(), &[child.to_owned()]].concat()) => {}
        _ => return None,
    }
    while let Some(name) = names.next_if(|name| ["crate", "self", "super"].contains(&name.as_str())) {
        if name == "super" {
            to.pop();
        }
    }
    for name in names {
        to.push(name.clone());
        if !known.contains(&to) {
            to.pop();
            break;
        }
    }
    Some(to)
}

/// Files that import each other in a circle, the first one at the end again. What lib.rs re-exports is no import.
fn circle(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    let mut done = BTreeSet::from([Module::new()]);
    imports.keys().find_map(|module| circle_from(module, imports, &mut Vec::new(), &mut done))
}

fn circle_from(
    module: &Module,
    imports: &BTreeMap<Module, BTreeSet<Module>>,
    way: &mut Vec<Module>,
    done: &mut BTreeSet<Module>,
) -> Option<Vec<Module>> {
    if done.contains(module) {
        return None;
    }
    way.push(module.clone());
    if let Some(start) = way.iter().position(|before| before == module).filter(|start| start + 1 < way.len()) {
        return Some(way[start..].to_vec());
    }
    let found = imports[module].iter().find_map(|next| circle_from(next, imports, way, done));
    if found.is_none() {
        way.pop();
        done.insert(module.clone());
    }
    found
}

#[test]
fn imports_are_found() {
    let known: BTreeSet<Module> = [&[][..], &["a"], &["a", "b"], &["c"], &["d"]]
        .iter()
        .map(|names| names.iter().map(|name| name.to_string()).collect())
        .collect();
    let found = |text: &str| {
        let code = without_tests(&tokens(text));
        let found = imports_of(&vec!["a".to_owned()], &code, &known);
        found.into_iter().map(|module| module.join("::")).collect::<Vec<_>>()
    };
    assert_eq!(found("use crate::{a::b::{Item, other}, c::Thing as It};"), ["a::b", "c"]);
    assert_eq!(found("fn f(x: &'static str) { crate::c::run::<crate::d::T>(x) }"), ["c", "d"]);
    assert_eq!(found("pub use b::*; use super::c; use std::c::x; let y = T::c::z;"), ["a::b", "c"]);
    assert_eq!(found("use crate::Item;"), [""]);
    assert_eq!(found("macro_rules! m { () => { $crate::c::f() } }"), ["c"]);
    assert_eq!(
        found("// crate::c::f()\n const T: &str = \"\\\" crate::c::f()\"; const Q: char = '\"'; use crate::d::Q;"),
        ["d"]
    );
    assert_eq!(found("#[cfg(test)]\nmod tests { use crate::c::f; } use crate::d;"), ["d"]);
}

#[test]
fn circles_are_found() {
    let graph = |edges: &[(&str, &[&str])]| {
        let module = |name: &str| vec![name.to_owned()];
        edges.iter().map(|(from, to)| (module(from), to.iter().map(|to| module(to)).collect())).collect()
    };
    assert_eq!(circle(&graph(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])), None);
    let found = circle(&graph(&[("a", &["b"]), ("b", &["c"]), ("c", &["d", "b"]), ("d", &[])])).unwrap();
    assert_eq!(found.concat(), ["b", "c", "b"]);
}
