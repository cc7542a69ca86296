//! Disks of copies that can be filled.
//!
//! Each node's `copies` folder becomes a small tmpfs. The mounts stand in a mount namespace of
//! their own, which a sleeping process holds and nodes enter as they start; with it they are gone,
//! and nothing outside ever sees them. Root may do that, and so may whoever is allowed user
//! namespaces. Where neither is, the kernel's limit on the size of files takes the place of the
//! disk's size: no file of the node may grow any more.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use testkit::process::{Lifetime, start};
use testkit::scratch::ScratchCluster;

/// Mounts a tmpfs on every folder that is named, says so, and stays.
const HOLD: &str = r#"set -e
for folder; do mount -t tmpfs -o size=160m,mode=700 holdfast "$folder"; done
echo mounted
exec sleep infinity"#;
/// A file that would get too large is an error for the node to handle, not its end.
const LIMITED: &str = r#"trap "" XFSZ; exec "$@""#;

/// The disks of a cluster's copies.
#[derive(Debug)]
pub enum Volumes {
    /// A file system each, in the namespace of this process.
    Mounted(Child),
    /// The size of files is limited.
    Limited,
}

impl Volumes {
    /// Gives every node of a cluster without copies a disk for them, and starts it again.
    pub async fn give(cluster: &mut ScratchCluster) -> anyhow::Result<Self> {
        let names = cluster.names();
        cluster.kill_all(&names)?;
        let mut folders = Vec::new();
        for name in &names {
            folders.push(cluster.node(name)?.folder.join("copies"));
            fs::create_dir_all(&folders[folders.len() - 1])?;
        }
        let volumes = match hold(&folders) {
            Ok(holder) => Self::Mounted(holder),
            Err(why) => {
                eprintln!("no file system may be mounted ({why:#}): the size of files is limited");
                Self::Limited
            }
        };
        for name in &names {
            cluster.start_through(name, volumes.enter());
        }
        cluster.restart(&names).await?;
        Ok(volumes)
    }

    /// Leaves a node's copies no room at all.
    pub fn fill(&self, cluster: &ScratchCluster, node: &str) -> anyhow::Result<()> {
        match self {
            Self::Limited => limit(cluster, node, Some(0)),
            Self::Mounted(holder) => fill(&filler(holder, cluster, node)?),
        }
    }

    /// Gives a node's copies their room back.
    pub fn free(&self, cluster: &ScratchCluster, node: &str) -> anyhow::Result<()> {
        match self {
            Self::Limited => limit(cluster, node, None),
            Self::Mounted(holder) => Ok(fs::remove_file(filler(holder, cluster, node)?)?),
        }
    }

    /// The command that a node is started through.
    fn enter(&self) -> Vec<OsString> {
        let words: Vec<String> = match self {
            Self::Limited => ["sh", "-c", LIMITED, "sh"].map(str::to_owned).into(),
            Self::Mounted(holder) => {
                let namespaces = format!("/proc/{}/ns", holder.id());
                let mut words = vec!["nsenter".to_owned(), format!("--mount={namespaces}/mnt")];
                if !is_root() {
                    words.push(format!("--user={namespaces}/user"));
                    words.push("--preserve-credentials".to_owned());
                }
                words.push("--".to_owned());
                words
            }
        };
        words.into_iter().map(OsString::from).collect()
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        if let Self::Mounted(holder) = self {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn hold(folders: &[PathBuf]) -> anyhow::Result<Child> {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["sh", "-c", HOLD, "sh"]).args(folders);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut holder = start(command, Lifetime::WithParent).context("run unshare")?;
    let mut line = String::new();
    let said = holder.stdout.take().context("its output is a pipe")?;
    BufReader::new(said).read_line(&mut line)?;
    if line.trim() != "mounted" {
        let output = holder.wait_with_output()?;
        anyhow::bail!("{}", String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    Ok(holder)
}

/// The file that takes the room, seen from outside of the namespace.
fn filler(holder: &Child, cluster: &ScratchCluster, node: &str) -> anyhow::Result<PathBuf> {
    let folder = cluster.node(node)?.folder.join("copies");
    let inside = folder.strip_prefix("/").context("a cluster's folder is absolute")?;
    Ok(PathBuf::from(format!("/proc/{}/root", holder.id())).join(inside).join("filler"))
}

fn fill(path: &PathBuf) -> anyhow::Result<()> {
    let mut file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut written = 0_u64;
    for block in [1 << 20, 4 << 10] {
        let block = vec![b'x'; block];
        loop {
            match file.write(&block) {
                Ok(bytes) => written += bytes as u64,
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error).context("fill a disk"),
            }
        }
    }
    ensure!(written > 0, "the disk was full before");
    Ok(())
}

fn limit(cluster: &ScratchCluster, node: &str, bytes: Option<u64>) -> anyhow::Result<()> {
    let process = cluster.node(node)?.process.as_ref().context("it was never started")?;
    let pid = Pid::from_raw(process.pid).context("a process has a number")?;
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: bytes, maximum: None })?;
    Ok(())
}
