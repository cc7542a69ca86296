//! Who may depend on whom: the graph of ARCHITECTURE.md against `cargo metadata`.
//!
//! Three rules: the pure crates use nothing that could read a clock, a file or a socket; some outside
//! crates have one owner; and between our own crates there are only the edges listed here.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// Crates whose decisions must be the same on every copy, for ever.
const PURE: [&str; 4] = ["dag-types", "mailbox", "active-manager", "dac"];

/// All that a pure crate may use from outside.
const PURE_MAY_USE: [&str; 4] = ["blake3", "bytes", "prost", "thiserror"];

/// Outside crates that only some of ours may name, so that they can be exchanged there alone.
const OWNERS: [(&str, &[&str]); 4] = [
    ("rocksdb", &["storage"]),
    ("openraft", &["replication", "sim"]),
    ("clap", &["dag-server", "dagctl", "xtask", "sim", "cluster", "history", "bench", "model"]),
    ("stateright", &["model"]),
];

/// Edges between our own crates, outside of tests. `testkit` and what lies under `chaos-tests/` stand
/// above everything and may use any crate.
const EDGES: [(&str, &[&str]); 14] = [
    ("dag-types", &[]),
    ("mailbox", &["dag-types"]),
    ("active-manager", &["dag-types"]),
    ("dac", &["dag-types"]),
    ("dag-format", &["dag-types"]),
    ("dag-api", &["dag-types"]),
    ("mail-mime", &["dag-api"]),
    ("storage", &["dag-format", "dag-types"]),
    ("seeding", &["dag-format", "dag-types", "storage"]),
    ("replication", &["dac", "dag-api", "dag-format", "dag-types", "storage"]),
    ("dag-client", &["dag-api", "dag-types"]),
    ("dagctl", &["active-manager", "dag-api", "dag-client", "dag-types", "testkit"]),
    (
        "dag-server",
        &[
            "active-manager",
            "dac",
            "dag-api",
            "dag-client",
            "dag-format",
            "dag-types",
            "history",
            "mail-mime",
            "mailbox",
            "replication",
            "seeding",
            "storage",
        ],
    ),
    ("xtask", &[]),
];

/// Every broken rule, in words.
pub fn problems(root: &Path) -> anyhow::Result<Vec<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("read cargo metadata")?;
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let mut problems = Vec::new();
    for package in &metadata.packages {
        problems.extend(foreign_use(package, &ours));
        problems.extend(unlisted_edges(package, &ours));
    }
    for name in PURE {
        problems.extend(impure_source(&root.join("crates").join(name).join("src"), name)?);
    }
    Ok(problems)
}

/// What the package names under `[dependencies]`.
fn normal(package: &Package) -> impl Iterator<Item = &str> {
    let normal = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
    normal.map(|dependency| dependency.name.as_str())
}

fn foreign_use(package: &Package, ours: &BTreeSet<&str>) -> Vec<String> {
    let name = package.name.as_str();
    let pure = PURE.contains(&name);
    let outside = normal(package).filter(|used| !ours.contains(used));
    outside
        .filter_map(|used| {
            if pure && !PURE_MAY_USE.contains(&used) {
                return Some(format!("{name} is pure and may not use {used}"));
            }
            let owners = OWNERS.iter().find(|(owned, _)| *owned == used)?.1;
            let allowed = owners.contains(&name);
            (!allowed).then(|| format!("{name} names {used}, which belongs to {owners:?}"))
        })
        .collect()
}

fn unlisted_edges(package: &Package, ours: &BTreeSet<&str>) -> Vec<String> {
    let name = package.name.as_str();
    let Some((_, allowed)) = EDGES.iter().find(|(from, _)| *from == name) else {
        return Vec::new();
    };
    normal(package)
        .filter(|used| ours.contains(used) && !allowed.contains(used))
        .map(|used| format!("{name} may not use {used}: a new edge needs docs/decisions/"))
        .collect()
}

/// A pure crate is `no_std` outside of its tests, so that the compiler itself refuses clocks, files,
/// threads and unordered maps.
fn impure_source(folder: &Path, name: &str) -> anyhow::Result<Vec<String>> {
    let library = std::fs::read_to_string(folder.join("lib.rs"))
        .with_context(|| format!("read {name}'s lib.rs"))?;
    let mut problems = Vec::new();
    for needed in ["#![no_std]", "#![forbid(unsafe_code)]"] {
        if !library.contains(needed) {
            problems.push(format!("{name} is pure and must say {needed}"));
        }
    }
    let lines: Vec<&str> = library.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let for_tests = at > 0 && lines[at - 1].trim() == "#[cfg(test)]";
        if line.trim().starts_with("extern crate std") && !for_tests {
            problems.push(format!("{name} is pure and may use std in its tests only"));
        }
    }
    Ok(problems)
}
