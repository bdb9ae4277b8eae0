//! The folders of `src` are layers (see the table in `src/lib.rs`), and an import points to a
//! lower layer only: not up, and not within a layer. `unsafe` lives under `src/sys` alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first.
const LAYERS: [&[&str]; 9] = [
    &["limits", "clock"],
    &["sys", "metrics", "logging"],
    &["http1", "transport"],
    &["upstream"],
    &["s3", "relay"],
    &["policy", "access_log", "cache"],
    &["server"],
    &["config"],
    &["cli"],
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// All source files, each with its path below `src`.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut directories = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a readable directory") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a text file");
                let name = path.strip_prefix(&root).expect("below src").to_owned();
                sources.push((name, text));
            }
        }
    }
    assert!(sources.len() > 10, "the walk found only {} files", sources.len());
    sources
}

/// The top-level module that a file belongs to; `None` for `lib.rs` and `main.rs`.
fn module_of(path: &Path) -> Option<String> {
    let first = path.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib" && name != "main").then(|| name.to_owned())
}

/// The code of a file: comments and the contents of string literals are left out.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            string_end(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        rest = &rest[skipped..];
    }
    code
}

/// Length of the string literal at the start of `text`, quotes included.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The top-level modules that a piece of code names through `crate::`, groups
/// (`use crate::{a, b::c}`) included.
fn named_modules(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == ':') {
            continue;
        }
        let path = code[at + "crate::".len()..].trim_start();
        match path.strip_prefix('{') {
            Some(group) => modules.extend(group_members(group)),
            None => modules.extend([identifier(path)]),
        }
    }
    modules
}

/// First segments of the paths in a `{…}` group, whose opening brace is already gone.
fn group_members(group: &str) -> Vec<String> {
    let mut members = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                members.push(identifier(group[start..at].trim_start()));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    members.retain(|member| !member.is_empty());
    members
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// What is wrong with the imports of one file, one line each.
fn violations(path: &Path, text: &str) -> Vec<String> {
    let Some(module) = module_of(path) else { return Vec::new() };
    let Some(own) = layer(&module) else {
        return vec![format!("{}: module {module} is in no layer", path.display())];
    };
    let named = named_modules(&code_of(text));
    let wrong = named.into_iter().filter(|named| *named != module);
    wrong
        .filter_map(|named| match layer(&named) {
            Some(other) if other < own => None,
            Some(other) if other == own => Some((named, "a neighbour")),
            Some(_) => Some((named, "a layer that is not below")),
            None => Some((named, "no layer at all")),
        })
        .map(|(named, place)| format!("{}: crate::{named} is on {place}", path.display()))
        .collect()
}

/// Whether code says `unsafe`, other than in the name of a lint.
fn says_unsafe(code: &str) -> bool {
    code.match_indices("unsafe").any(|(at, word)| {
        let is_name = |character: char| character.is_alphanumeric() || character == '_';
        let before = code[..at].chars().next_back().is_some_and(is_name);
        let after = code[at + word.len()..].chars().next().is_some_and(is_name);
        !before && !after
    })
}

#[test]
fn imports_point_down() {
    let wrong: Vec<_> = sources().iter().flat_map(|(path, text)| violations(path, text)).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_module_of_the_crate_is_in_a_layer_and_every_layer_has_one() {
    let declared: BTreeSet<String> =
        sources().iter().filter_map(|(path, _)| module_of(path)).collect();
    let in_layers: BTreeSet<String> = LAYERS.concat().iter().map(|&name| name.to_owned()).collect();
    assert_eq!(declared, in_layers);
}

#[test]
fn the_table_in_the_crates_documentation_is_this_one() {
    let lib = include_str!("../src/lib.rs");
    for (layer, modules) in LAYERS.iter().enumerate() {
        let names: Vec<_> = modules.iter().map(|name| format!("`{name}`")).collect();
        let row = format!("//! | {layer} | {} |", names.join(", "));
        assert!(lib.contains(&row), "missing in src/lib.rs: {row}");
    }
}

#[test]
fn unsafe_code_is_under_sys_only() {
    for (path, text) in sources() {
        let outside = !path.starts_with("sys");
        assert!(!(outside && says_unsafe(&code_of(&text))), "unsafe in {}", path.display());
    }
}

#[test]
fn a_planted_import_is_caught() {
    let wrong = |path: &str, text: &str| violations(Path::new(path), text).len();
    assert_eq!(wrong("http1/range.rs", "use crate::limits;\nuse crate::http1::framing;\n"), 0);
    assert_eq!(wrong("http1/range.rs", "use crate::server::Settings;\n"), 1, "up");
    assert_eq!(wrong("s3/body.rs", "use crate::relay::Relay;\n"), 1, "to a neighbour");
    assert_eq!(wrong("s3/mod.rs", "use crate::{limits, http1::{range, target}, config};\n"), 1);
    assert_eq!(wrong("s3/mod.rs", "use crate::{\n    cache::metadata,\n    mount,\n};\n"), 2);
    assert_eq!(wrong("sys/cpu.rs", "fn f() { crate::server::run() }\n"), 1, "without a use");
    assert_eq!(wrong("sys/cpu.rs", "pub(crate) fn f() {} // crate::server\n"), 0, "a comment");
    assert_eq!(wrong("sys/cpu.rs", "const TEXT: &str = \"crate::server\";\n"), 0, "a string");
    assert_eq!(wrong("sys/cpu.rs", "use my_crate::server;\n"), 0, "another crate");
    assert_eq!(wrong("attic/mod.rs", "fn f() {}\n"), 1, "a module in no layer");
}

#[test]
fn a_planted_unsafe_is_caught() {
    assert!(says_unsafe(&code_of("fn f() { unsafe { g() } }")));
    assert!(says_unsafe(&code_of("unsafe impl Send for X {}")));
    assert!(!says_unsafe(&code_of("#![deny(unsafe_code)] // unsafe\nconst X: &str = \"unsafe\";")));
}
