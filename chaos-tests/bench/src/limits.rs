//! What the machine does without us: the figures that a cell is compared with.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

/// Bytes that O_DIRECT demands as a unit, and as the alignment of memory.
const UNIT: usize = 4_096;
const PROBE: Duration = Duration::from_millis(700);
/// The file is written in a circle, as a log of recycled segments is.
const FILE_BYTES: usize = 16 << 20;

/// Rates of aligned O_DIRECT writes with fdatasync after each, and of the loopback.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Limits {
    /// Writes of 4 KiB a second into one file.
    pub writes_4k_one_file: f64,
    /// The same into three files by three threads, together.
    pub writes_4k_three_files: f64,
    /// Writes of 52 KiB (a mail of 50 KB and its header) into one file.
    pub writes_52k_one_file: f64,
    /// The same into three files by three threads, together.
    pub writes_52k_three_files: f64,
    /// MiB a second through a loopback connection.
    pub loopback_mib: f64,
    /// Microseconds there and back, median.
    pub loopback_round_trip_us: f64,
}

/// Measures all of it; about four seconds.
pub fn measure(folder: &Path) -> anyhow::Result<Limits> {
    let (loopback_mib, loopback_round_trip_us) = loopback()?;
    Ok(Limits {
        writes_4k_one_file: writes(folder, UNIT, 1)?,
        writes_4k_three_files: writes(folder, UNIT, 3)?,
        writes_52k_one_file: writes(folder, 13 * UNIT, 1)?,
        writes_52k_three_files: writes(folder, 13 * UNIT, 3)?,
        loopback_mib,
        loopback_round_trip_us,
    })
}

/// The limit for a mail of this size, with as many files as there are copies: the rate of one
/// file while all three are written.
pub fn beside(folder: &Path, size: usize) -> anyhow::Result<f64> {
    Ok(writes(folder, (size + 512).next_multiple_of(UNIT), 3)? / 3.0)
}

/// Durable writes a second of this size, over as many files as threads.
fn writes(folder: &Path, size: usize, files: usize) -> anyhow::Result<f64> {
    let mut probes = Vec::new();
    for number in 0..files {
        let path = folder.join(format!("limit-{number}.bin"));
        probes.push(std::thread::spawn(move || {
            let rate = write_loop(&path, size);
            let _ = std::fs::remove_file(&path);
            rate
        }));
    }
    let mut sum = 0.0;
    for probe in probes {
        sum += probe.join().expect("a probe does not panic")?;
    }
    Ok(sum)
}

fn write_loop(path: &Path, size: usize) -> anyhow::Result<f64> {
    std::fs::write(path, vec![0_u8; FILE_BYTES])?;
    File::open(path)?.sync_all()?;
    let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())
        .with_context(|| format!("open {} past the page cache", path.display()))?;
    let file = File::from(file);
    let memory = vec![0x5a_u8; size + UNIT];
    let start = memory.as_ptr().align_offset(UNIT);
    let buffer = &memory[start..start + size];
    let (begin, mut count, mut at) = (Instant::now(), 0_u64, 0);
    while begin.elapsed() < PROBE {
        file.write_all_at(buffer, at as u64)?;
        file.sync_data()?;
        count += 1;
        at = if at + 2 * size > FILE_BYTES { 0 } else { at + size };
    }
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}

fn loopback() -> anyhow::Result<(f64, f64)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sink = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut first, _) = listener.accept()?;
        let mut buffer = vec![0; 1 << 18];
        while first.read(&mut buffer)? > 0 {}
        let (mut second, _) = listener.accept()?;
        second.set_nodelay(true)?;
        let mut byte = [0];
        while second.read(&mut byte)? > 0 {
            second.write_all(&byte)?;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(address)?;
    let (block, begin, mut sent) = (vec![7; 1 << 18], Instant::now(), 0_usize);
    while begin.elapsed() < PROBE {
        stream.write_all(&block)?;
        sent += block.len();
    }
    let rate = sent as f64 / (1 << 20) as f64 / begin.elapsed().as_secs_f64();
    drop(stream);
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let (begin, mut trips, mut byte) = (Instant::now(), Vec::new(), [1]);
    while begin.elapsed() < PROBE / 2 {
        let trip = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        trips.push(trip.elapsed());
    }
    drop(stream);
    sink.join().expect("the sink does not panic")?;
    trips.sort_unstable();
    Ok((rate, trips[trips.len() / 2].as_secs_f64() * 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_and_the_loopback_can_be_measured_here() {
        // Not in memory: a temporary folder may refuse O_DIRECT.
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        std::fs::create_dir_all(&folder).expect("a folder");
        let scratch = tempfile::tempdir_in(folder).expect("a folder");
        let limits = measure(scratch.path()).expect("measured");
        assert!(limits.writes_4k_one_file > 1.0 && limits.loopback_mib > 1.0, "{limits:?}");
    }
}
