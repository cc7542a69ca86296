//! One operating-system process, named so that a stranger is never mistaken for it.
//!
//! Process ids are used again. A process is therefore named by its id, the tick of the kernel's
//! clock at which it started, the boot of the machine, and the program it runs; a signal is sent
//! only while all four still hold.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

/// The identity of a process that was started here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessName {
    /// The process id.
    pub pid: i32,
    /// When it started, in clock ticks since the machine's boot (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
    /// The machine's boot, from `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The program that it runs.
    pub exe: PathBuf,
}

/// What `/proc/PID/stat` says of a process.
struct Stat {
    state: char,
    start_ticks: u64,
}

impl ProcessName {
    /// Names a process that this one started and has not reaped yet.
    pub fn of(pid: u32, exe: &Path) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        let start_ticks = read_stat(pid)
            .ok_or_else(|| io::Error::other(format!("process {pid} ended at once")))?
            .start_ticks;
        Ok(Self { pid, start_ticks, boot_id: boot_id()?, exe: exe.to_path_buf() })
    }

    /// Names the process that asks.
    pub fn own() -> io::Result<Self> {
        Self::of(getpid().as_raw_nonzero().get() as u32, &std::env::current_exe()?)
    }

    /// Whether that very process still runs. A dead one that nobody waited for does not.
    pub fn is_alive(&self) -> bool {
        self.is_the_same()
            && read_stat(self.pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
    }

    /// Whether it was stopped by SIGSTOP.
    pub fn is_paused(&self) -> bool {
        self.is_the_same() && read_stat(self.pid).is_some_and(|stat| stat.state == 'T')
    }

    /// Sends a signal; `false` when the process is gone, and then nobody else got it either.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        if !self.is_alive() {
            return Ok(false);
        }
        match kill_process(self.raw(), signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until the process is gone; `false` when it still ran at the end of that time.
    pub fn wait_gone(&self, at_most: Duration) -> bool {
        let end = Instant::now() + at_most;
        while self.is_alive() {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    fn raw(&self) -> Pid {
        Pid::from_raw(self.pid).expect("a recorded process id is positive")
    }

    fn is_the_same(&self) -> bool {
        let started = read_stat(self.pid).is_some_and(|stat| stat.start_ticks == self.start_ticks);
        started && boot_id().is_ok_and(|boot| boot == self.boot_id) && self.runs_the_program()
    }

    /// A rebuilt program leaves the running one as `PATH (deleted)`. What a zombie ran is unknown.
    fn runs_the_program(&self) -> bool {
        let Ok(exe) = fs::read_link(format!("/proc/{}/exe", self.pid)) else {
            return read_stat(self.pid).is_some_and(|stat| stat.state == 'Z');
        };
        let text = exe.to_string_lossy();
        Path::new(text.trim_end_matches(" (deleted)")) == self.exe
    }
}

fn read_stat(pid: i32) -> Option<Stat> {
    // The second field is the program's name in brackets and may contain anything.
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Whether a process outlives the one that started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// It runs until it is stopped by name: what `dagctl local up` starts.
    Detached,
    /// The kernel kills it when the starting process ends, however that ends: what tests start.
    WithParent,
}

type Job = Box<dyn FnOnce() + Send>;

/// Starts a process. `WithParent` goes through one thread that lives as long as this process,
/// because the kernel's parent-death signal follows the starting thread, not its process.
pub fn start(mut command: Command, lifetime: Lifetime) -> io::Result<Child> {
    use std::os::unix::process::CommandExt as _;
    // Its own process group: an interrupt typed at the terminal is for the one in front.
    command.process_group(0);
    if lifetime == Lifetime::Detached {
        return command.spawn();
    }
    let parent = getpid();
    let die_with_parent = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have ended before the line above.
        if rustix::process::getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::Error::from(rustix::io::Errno::SRCH))
        }
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(die_with_parent) };
    let (answer, answered) = mpsc::channel();
    let job: Job = Box::new(move || {
        let _ = answer.send(command.spawn());
    });
    let queue = starter().lock().expect("sending does not panic");
    queue.send(job).expect("the starter lives as long as the process");
    drop(queue);
    answered.recv().map_err(io::Error::other)?
}

fn starter() -> &'static Mutex<mpsc::Sender<Job>> {
    static STARTER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    STARTER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("starter".into())
            .spawn(move || queue.into_iter().for_each(|job| job()))
            .expect("a thread can be started");
        Mutex::new(jobs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(lifetime: Lifetime) -> (Child, ProcessName) {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let child = start(command, lifetime).expect("sleep starts");
        // Until the child has executed its program its name is not known.
        let link = format!("/proc/{}/exe", child.id());
        let own = std::env::current_exe().expect("own program");
        let exe = loop {
            match fs::read_link(&link) {
                Ok(exe) if exe != own => break exe,
                _ => std::thread::yield_now(),
            }
        };
        let name = ProcessName::of(child.id(), &exe).expect("its name");
        (child, name)
    }

    #[test]
    fn a_signal_reaches_the_process_that_was_named() {
        let (mut child, name) = sleeper(Lifetime::WithParent);
        assert!(name.is_alive());
        assert!(name.signal(Signal::KILL).expect("signal"));
        child.wait().expect("it ends");
        assert!(!name.is_alive());
        assert!(!name.signal(Signal::KILL).expect("nobody is signalled"));
    }

    #[test]
    fn a_stranger_with_the_same_process_id_is_left_alone() {
        let (mut child, name) = sleeper(Lifetime::WithParent);
        for stranger in [
            ProcessName { start_ticks: name.start_ticks + 1, ..name.clone() },
            ProcessName { exe: "/bin/other".into(), ..name.clone() },
            ProcessName { boot_id: "another boot".into(), ..name.clone() },
        ] {
            assert!(!stranger.signal(Signal::KILL).expect("nobody is signalled"), "{stranger:?}");
        }
        assert!(name.is_alive());
        name.signal(Signal::KILL).expect("signal");
        child.wait().expect("it ends");
    }

    #[test]
    fn a_paused_process_is_alive_and_says_so() {
        let (mut child, name) = sleeper(Lifetime::WithParent);
        name.signal(Signal::STOP).expect("signal");
        let end = Instant::now() + Duration::from_secs(5);
        while !name.is_paused() {
            assert!(Instant::now() < end, "never stopped");
            std::thread::yield_now();
        }
        assert!(name.is_alive());
        name.signal(Signal::KILL).expect("signal");
        child.wait().expect("it ends");
    }

    #[test]
    fn a_dead_process_that_nobody_reaped_is_not_alive() {
        let (mut child, name) = sleeper(Lifetime::WithParent);
        name.signal(Signal::KILL).expect("signal");
        assert!(name.wait_gone(Duration::from_secs(5)));
        child.wait().expect("it ends");
    }
}
