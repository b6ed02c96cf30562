//! The imports between a package's files. A parser reads them, so that a comment or string is not taken for
//! an import. Not seen: paths inside macros, the files of `bin/`, and what a folder's head file passes on
//! with
//! `pub use` (that is an import from the head).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, visit::Visit};

/// A module as its names from the crate's root; the root itself is empty.
pub(super) type Module = Vec<String>;

/// The modules of a package that have a file, each with the modules from which it imports. Tests are left
/// out.
#[derive(Debug, Default)]
pub(super) struct Imports(BTreeMap<Module, BTreeSet<Module>>);

impl Imports {
    /// Reads the files under `src`; `own` is the name by which the package's programs import its library.
    pub(super) fn read(src: &Path, own: &str) -> Result<Self> {
        let mut texts = BTreeMap::new();
        collect(src, &mut Vec::new(), &mut texts)?;
        Self::of(&texts, own)
    }

    /// Parses the files of these modules.
    pub(super) fn of(texts: &BTreeMap<Module, String>, own: &str) -> Result<Self> {
        let parsed = texts.iter().map(|(module, text)| {
            let file =
                syn::parse_file(text).with_context(|| format!("cannot parse {}", module.join("::")))?;
            Ok((module, file))
        });
        let parsed = parsed.collect::<Result<BTreeMap<_, _>>>()?;
        let tests: BTreeSet<Module> =
            parsed.iter().flat_map(|(module, file)| tests_of(module, file)).collect();
        let is_test = |module: &Module| tests.iter().any(|test| module.starts_with(test));
        let known: BTreeSet<&Module> = parsed.keys().copied().filter(|module| !is_test(module)).collect();
        let imports = known.iter().map(|module| {
            let children = parsed[module].items.iter().filter_map(|item| match item {
                Item::Mod(declared) if declared.content.is_none() => Some(declared.ident.to_string()),
                _ => None,
            });
            let mut seen =
                Seen { own, module, inline: 0, children: children.collect(), found: BTreeSet::new() };
            seen.visit_file(&parsed[module]);
            let from = seen.found.into_iter().filter_map(|path| file_of(path, &known));
            ((*module).clone(), from.filter(|from| from != *module).collect())
        });
        Ok(Self(imports.collect()))
    }

    /// Every import, as a pair (importer, imported).
    pub(super) fn arrows(&self) -> impl Iterator<Item = (&Module, &Module)> {
        self.0.iter().flat_map(|(module, from)| from.iter().map(move |from| (module, from)))
    }

    /// Modules that import each other, directly or not. A folder and its head file belong together, so a
    /// file's imports from the heads above it do not count.
    pub(super) fn circles(&self) -> Vec<Vec<&Module>> {
        let reach: BTreeMap<&Module, BTreeSet<&Module>> =
            self.0.keys().map(|module| (module, self.reachable(module))).collect();
        let mut circles: Vec<Vec<&Module>> = Vec::new();
        for module in self.0.keys() {
            let circle = reach[module].iter().copied().filter(|other| reach[*other].contains(module));
            let circle: Vec<&Module> = circle.collect();
            if circle.len() > 1 && !circles.contains(&circle) {
                circles.push(circle);
            }
        }
        circles
    }

    fn reachable<'a>(&'a self, from: &'a Module) -> BTreeSet<&'a Module> {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            let imports = self.0.get(module).into_iter().flatten();
            next.extend(imports.filter(|import| !module.starts_with(import) && seen.insert(*import)));
        }
        seen
    }
}

/// Reads `dir`, whose module is `module`, and all folders below it.
fn collect(dir: &Path, module: &mut Module, texts: &mut BTreeMap<Module, String>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // The programs in `bin` are separate from the library.
        if path.is_dir() && name != "bin" {
            module.push(name);
            collect(&path, module, texts)?;
            module.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let own = (name != "lib").then_some(name);
            texts.insert(module.iter().cloned().chain(own).collect(), text);
        }
    }
    Ok(())
}

/// The modules with their own files that `file` declares only for tests.
fn tests_of(module: &Module, file: &syn::File) -> Vec<Module> {
    let declared = file.items.iter().filter_map(|item| match item {
        Item::Mod(declared) if declared.content.is_none() && is_for_tests(&declared.attrs) => Some(declared),
        _ => None,
    });
    // The modules that `main` declares lie beside it.
    let above = if module == &["main"] { &[] } else { &module[..] };
    declared.map(|declared| [above, &[declared.ident.to_string()]].concat()).collect()
}

fn is_for_tests(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| {
        attr.path().is_ident("cfg")
            && attr.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}

/// The module in whose file a path ends.
fn file_of(mut path: Module, known: &BTreeSet<&Module>) -> Option<Module> {
    while !path.is_empty() && !known.contains(&path) {
        path.pop();
    }
    (!path.is_empty()).then_some(path)
}

/// Collects the paths in one file that begin in its own crate.
struct Seen<'a> {
    own: &'a str,
    module: &'a Module,
    /// Modules written out in the file, around what is looked at now.
    inline: usize,
    /// Modules that the file declares, which it may name without `self::`.
    children: BTreeSet<String>,
    found: BTreeSet<Module>,
}

impl Seen<'_> {
    fn note(&mut self, segments: &[String]) {
        let mut rest = segments.iter();
        // The modules around the path that have no file of their own.
        let inline = || (0..self.inline).map(|_| String::new());
        let mut path = match rest.next().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some(name) if name == self.own => Vec::new(),
            Some("self") => self.module.iter().cloned().chain(inline()).collect(),
            Some("super") => {
                let mut path: Module = self.module.iter().cloned().chain(inline()).collect();
                path.pop();
                path
            }
            Some(name) if self.inline == 0 && self.children.contains(name) && segments.len() > 1 => {
                // The children of `main` and `lib` lie beside these.
                let above = if self.module == &["main"] { &[] } else { &self.module[..] };
                [above, &[name.to_owned()]].concat()
            }
            _ => return,
        };
        for segment in rest {
            match segment.as_str() {
                "super" => _ = path.pop(),
                "self" => {}
                name => path.push(name.to_owned()),
            }
        }
        self.found.insert(path);
    }

    fn tree(&mut self, tree: &UseTree, before: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.tree(&path.tree, before);
                before.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before)),
            UseTree::Name(name) => self.note(&[before, &[name.ident.to_string()][..]].concat()),
            UseTree::Rename(name) => self.note(&[before, &[name.ident.to_string()][..]].concat()),
            UseTree::Glob(_) => self.note(before),
        }
    }
}

impl<'ast> Visit<'ast> for Seen<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_for_tests(&item.attrs) {
            self.inline += 1;
            syn::visit::visit_item_mod(self, item);
            self.inline -= 1;
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.tree(&item.tree, &mut Vec::new());
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.note(&segments);
        syn::visit::visit_path(self, path);
    }

    // `pub(super)` is not an import.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(files: &[(&str, &str)]) -> Imports {
        let module =
            |name: &str| name.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let texts = files.iter().map(|(name, text)| (module(name), (*text).to_owned())).collect();
        Imports::of(&texts, "own").expect("parsed")
    }

    fn arrows(imports: &Imports) -> Vec<String> {
        imports.arrows().map(|(who, from)| format!("{} -> {}", who.join("::"), from.join("::"))).collect()
    }

    #[test]
    fn every_way_to_write_a_path_is_found_and_tests_are_not() {
        let seen = imports(&[
            ("", "mod a; mod b; mod c;"),
            ("a", "use crate::{b::{self, x::Y}, c}; mod d; #[cfg(test)] mod t; fn f() { super::c::g() }"),
            ("a::d", "pub(super) use super::super::b::Z; // use crate::c;\n fn f() -> self::super::X { X }"),
            ("a::t", "use crate::c;"),
            ("b", "const C: &str = \"crate::a\"; #[cfg(test)] mod tests { use crate::c; }"),
            ("c", "use std::fmt; use crate::missing;"),
        ]);
        assert_eq!(arrows(&seen), ["a -> b", "a -> c", "a::d -> a", "a::d -> b"]);
        let seen = imports(&[
            (
                "a",
                "mod d; use d::X; fn f() { d::g() } mod inner { use super::super::c; fn f() { super::h() } }",
            ),
            ("a::d", ""),
            ("c", ""),
        ]);
        assert_eq!(arrows(&seen), ["a -> a::d", "a -> c"]);
    }

    #[test]
    fn a_circle_is_found_and_a_file_with_its_folders_head_is_none() {
        let seen = imports(&[
            ("a", "use self::b::X; use crate::d;"),
            ("a::b", "use super::A; use super::c;"),
            ("a::c", "use crate::d::e;"),
            ("d", "use self::e;"),
            ("d::e", "use crate::a::b;"),
        ]);
        let circles: Vec<Vec<String>> = seen
            .circles()
            .iter()
            .map(|circle| circle.iter().map(|module| module.join("::")).collect())
            .collect();
        assert_eq!(circles, [["a::b", "a::c", "d::e"]]);
    }
}
