//! How fast a copy is seeded on this disk, beside a plain copy of the same files with a sync of
//! each, in turns, so that both meet the same disk.
//!
//! `cargo run --release -p seeding --example seed_rate -- FOLDER [MIB] [ROUNDS]`

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dag_types::{
    Chain, DagId, DatabaseId, Generation, LogId, Millis, NodeId, ReplicaId, StoreId, Write,
};
use seeding::limit::RateLimit;
use seeding::source::{Served, Source, SourceRules};
use seeding::target::{SeedOrder, Step, Target};
use seeding::wire::{CheckpointId, Origin, Reply, Request};
use storage::disk::{Disk, RealDisk};
use storage::identity::CopyIdentity;
use storage::state::rocks::{SharedResources, StateBudget};
use storage::state::{StateEngine, applied_write};

const BODY: usize = 64 << 10;
const DAG: DagId = DagId([1; 16]);
const DATABASE: DatabaseId = DatabaseId(16);

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().expect("usage: seed_rate FOLDER [MIB] [ROUNDS]"));
    let mib: u64 = args.next().map_or(2048, |mib| mib.parse().expect("a number of MiB"));
    let rounds: u32 = args.next().map_or(3, |rounds| rounds.parse().expect("a number of rounds"));
    let folder = folder.join("seed-rate");
    fs::create_dir_all(&folder).expect("make the folder");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let source = source(&disk, &folder, mib);
    let files = source.checkpoints().next().map(|m| source.files_of(m.checkpoint)).expect("taken");
    let bytes = source.checkpoints().next().expect("taken").total_bytes();
    println!("{} MiB in files", bytes >> 20);
    let mut source = Some(source);
    let mut ratios = Vec::new();
    for round in 0..rounds {
        let plain = copy(&files, &folder.join("plain"));
        let (seeded, back) = seed(&disk, source.take().expect("given back"), &folder.join("seed"));
        source = Some(back);
        let rate = |took: Duration| bytes as f64 / took.as_secs_f64() / 1e6;
        ratios.push(plain.as_secs_f64() / seeded.as_secs_f64() * 100.0);
        println!(
            "round {round}: copy and sync {:.0} MB/s, seed with verification {:.0} MB/s: {:.0} %",
            rate(plain),
            rate(seeded),
            ratios[round as usize]
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("median {:.0} %", ratios[ratios.len() / 2]);
    fs::remove_dir_all(&folder).expect("clean up");
}

/// A copy with `mib` MiB of bodies that do not compress, and a checkpoint of it.
fn source(disk: &Arc<dyn Disk>, folder: &Path, mib: u64) -> Source {
    let engine = SharedResources::new(StateBudget::default()).expect("an engine");
    let store = engine.create(&folder.join("state")).expect("a state");
    let mut body = vec![0_u8; BODY];
    for n in 0..(mib << 20) / BODY as u64 {
        blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut body);
        let key = [&[0x80], &blake3::hash(&n.to_le_bytes()).as_bytes()[..]].concat();
        let value = Bytes::copy_from_slice(&body);
        store.write(&[Write::Put { key: key.into(), value }]).expect("written");
        if store.unflushed_bytes() > 128 << 20 {
            store.flush().expect("flushed");
        }
    }
    store.write(&[applied_write(LogId { term: 1, index: 1 }, Chain([1; 16]))]).expect("written");
    let place = folder.join("seed-source");
    let rules = SourceRules::default();
    let mut source =
        Source::open(disk.clone(), &place, rules, RateLimit::none(), Millis(0)).expect("a source");
    let origin = Origin {
        dag: DAG,
        database: DATABASE,
        generation: Generation(1),
        replica: ReplicaId(5),
        node: NodeId(5),
    };
    source.take(Millis(0), CheckpointId(1), origin, &*store, &engine, &[1]).expect("a checkpoint");
    source
}

/// What `cp` does, and a sync of each file and of the folder.
fn copy(from: &Path, to: &Path) -> Duration {
    let _ = fs::remove_dir_all(to);
    let start = Instant::now();
    fs::create_dir_all(to).expect("a folder");
    let mut buffer = vec![0; 1 << 20];
    for entry in fs::read_dir(from).expect("files") {
        let entry = entry.expect("a file");
        let copied = copy_file(&entry.path(), &to.join(entry.file_name()), &mut buffer);
        copied.expect("copied");
    }
    File::open(to).and_then(|folder| folder.sync_all()).expect("synced");
    let took = start.elapsed();
    fs::remove_dir_all(to).expect("removed");
    took
}

fn copy_file(from: &Path, to: &Path, buffer: &mut [u8]) -> io::Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    loop {
        match from.read(buffer)? {
            0 => return to.sync_data(),
            read => to.write_all(&buffer[..read])?,
        }
    }
}

/// A whole seed, the source on a thread of its own as on another node.
fn seed(disk: &Arc<dyn Disk>, source: Source, folder: &Path) -> (Duration, Source) {
    let _ = fs::remove_dir_all(folder);
    let start = Instant::now();
    let (ask, asked) = sync_channel::<Request>(8);
    let (give, given) = sync_channel::<Reply>(64);
    let thread = std::thread::spawn(move || {
        let mut source = source;
        for request in asked {
            match source.serve(Millis(0), ReplicaId(9), &request).expect("served") {
                Served::Replies(replies) => {
                    replies.into_iter().for_each(|reply| give.send(reply).expect("a target"));
                }
                other => panic!("{other:?}"),
            }
        }
        source
    });
    let identity = CopyIdentity {
        dag: DAG,
        node: NodeId(7),
        store: StoreId([5; 16]),
        database: DATABASE,
        generation: Generation(1),
        replica: ReplicaId(9),
    };
    let order = SeedOrder { identity, at_least: None, reserve_bytes: 0, link_from: None };
    let mut target = Target::open(disk.clone(), folder, order).expect("a seed");
    loop {
        let now = Millis(start.elapsed().as_millis() as u64);
        match target.step(now, None).expect("a step") {
            Step::Built => break,
            Step::Ask(request) => ask.send(request).expect("a source"),
            Step::Again => {}
            Step::Wait => {
                let reply = given.recv().expect("a reply");
                target.step(now, Some(reply)).expect("a step");
            }
            Step::Reconnect => panic!("nothing is damaged here"),
        }
    }
    let took = start.elapsed();
    drop(ask);
    let source = thread.join().expect("the source");
    target.cancel().expect("cleaned up");
    (took, source)
}
