//! `recheck FILE [JOURNAL...]`: judges a stored history again.
//!
//! Ends with 0 where everything that the run promised held, 1 where a rule was violated, 2 where a
//! rule could not be judged, 3 where the files could not be read.

use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

use history::{History, judge, minimise, timeline};

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() || files.iter().any(|file| file.starts_with('-')) {
        eprintln!("usage: recheck HISTORY.jsonl [JOURNAL.jsonl...]");
        return ExitCode::from(3);
    }
    match read(&files) {
        Ok(history) => report(&history),
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(3)
        }
    }
}

fn read(files: &[String]) -> Result<History, String> {
    let open = |file: &String| match File::open(file) {
        Ok(opened) => Ok(BufReader::new(opened)),
        Err(source) => Err(format!("open {file}: {source}")),
    };
    let mut history =
        History::read(open(&files[0])?).map_err(|error| format!("{}: {error}", files[0]))?;
    for file in &files[1..] {
        history.add_journal(open(file)?).map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(history)
}

fn report(history: &History) -> ExitCode {
    let report = judge(history);
    print!("{report}");
    for violation in report.violations() {
        println!("\n{}: {}", violation.rule, violation.message);
        print!("{}", timeline::draw(history, &minimise::minimise(history, violation)));
    }
    if !history.run.reproduce.is_empty() {
        println!("\nmade by: {}", history.run.reproduce);
    }
    match (report.is_good(), report.violations().is_empty()) {
        (true, _) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(1),
        (false, true) => ExitCode::from(2),
    }
}
