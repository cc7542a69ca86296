//! Tables for [`super`].

use super::*;

const LEAST: &str = r#"
node_id = 3
name = "b1"
root = "/var/lib/holdfast/b1"
[listen]
peers = "127.0.0.3:7401"
clients = "127.0.0.3:7402"
admin = "127.0.0.3:7403"
"#;

fn parse(text: &str) -> Result<Settings, String> {
    toml::from_str(text).map_err(|e| e.to_string())
}

#[test]
fn the_shortest_file_is_complete() {
    let settings = parse(LEAST).unwrap();
    assert_eq!(settings.problems(), Vec::<String>::new());
    assert_eq!(settings.worker_threads, 0);
    assert!(!settings.insecure);
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    for (place, text) in [
        ("node", format!("databases = 3\n{LEAST}")),
        ("listen", format!("{LEAST}\nmetrics = \"127.0.0.3:1\"")),
        ("budget", format!("{LEAST}\n[budget]\nram = \"1GiB\"")),
    ] {
        let error = parse(&text).expect_err(place);
        assert!(error.contains("unknown field"), "{place}: {error}");
    }
}

#[test]
fn every_problem_is_named_at_once() {
    let settings = parse(
        r#"
        node_id = 0
        name = "a b"
        root = "relative"
        attempt = "1ms"
        [listen]
        peers = "10.0.0.1:7401"
        clients = "127.0.0.1:0"
        admin = "10.0.0.1:7401"
        [budget]
        memory = "1MiB"
        requests = 0
        message = "65MiB"
        cache = "1MiB"
        in_flight_per_database = "32MiB"
        in_flight = "16MiB"
        "#,
    )
    .unwrap();
    let problems = settings.problems();
    for start in [
        "node_id:",
        "name:",
        "root:",
        "attempt:",
        "listen.peers: 10.0.0.1:7401 is not loopback",
        "listen.clients: the others need a fixed port",
        "listen.admin: 10.0.0.1:7401 is the address of listen.peers",
        "budget.memory:",
        "budget.requests:",
        "budget.cache:",
        "budget.message:",
        "budget.in_flight_per_database: more than",
        "budget.in_flight_per_database: the largest message",
    ] {
        assert!(problems.iter().any(|p| p.starts_with(start)), "{start} not in {problems:#?}");
    }
}

#[test]
fn an_address_beyond_loopback_needs_the_word_insecure() {
    let open = LEAST.replace("127.0.0.3:7402", "0.0.0.0:7402");
    assert_eq!(parse(&open).unwrap().problems().len(), 1);
    let said = format!("insecure = true\n{open}");
    assert_eq!(parse(&said).unwrap().problems(), Vec::<String>::new());
}

#[test]
fn an_address_beyond_loopback_is_fine_with_tls() {
    let open = LEAST.replace("127.0.0.3:7402", "0.0.0.0:7402");
    let secured = format!("{open}\n[tls]\ncertificate = \"c\"\nkey = \"k\"\nauthority = \"a\"");
    assert_eq!(parse(&secured).unwrap().problems(), Vec::<String>::new());
}

#[test]
fn files_of_tls_that_are_missing_are_named_with_everything_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("b1.toml");
    let wrong = LEAST.replace("node_id = 3", "node_id = 0");
    std::fs::write(&file, format!("{wrong}\n[tls]\ncertificate = \"gone.pem\"")).unwrap();
    let problems = Settings::load(&file).unwrap_err().to_string();
    for part in ["node_id: 0 is no node", "tls.key: not given", "tls.authority: not given"] {
        assert!(problems.contains(part), "{problems}");
    }
}

#[test]
fn sizes_and_spans_read_as_written() {
    for (text, bytes) in [("0B", 0), ("17B", 17), ("4KiB", 4096), ("64MiB", 64 << 20)] {
        assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        assert_eq!(Size(bytes).to_string(), text);
    }
    for (text, millis) in [("150ms", 150), ("2s", 2000), ("3m", 180_000), ("1h", 3_600_000)] {
        assert_eq!(text.parse(), Ok(Span(Duration::from_millis(millis))), "{text}");
    }
}

#[test]
fn what_is_no_size_and_no_span_is_refused() {
    for text in ["", "64", "MiB", "-1MiB", "+1MiB", "1.5GiB", "64 MiB", "99999999999TiB", "64mb"] {
        assert!(text.parse::<Size>().is_err(), "{text}");
    }
    for text in ["", "150", "ms", "1d", "-1s", "0.5s"] {
        assert!(text.parse::<Span>().is_err(), "{text}");
    }
}

#[test]
fn every_settings_file_of_every_shape_can_be_used() {
    let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cluster-configs");
    let mut files = 0;
    for shape in std::fs::read_dir(shapes).unwrap().map(|entry| entry.unwrap().path()) {
        if !shape.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(shape).unwrap().map(|entry| entry.unwrap().path()) {
            if file.file_name().is_some_and(|name| name != "dag.toml") {
                Settings::load(&file).unwrap_or_else(|error| panic!("{error}"));
                files += 1;
            }
        }
    }
    assert!(files >= 15, "only {files} settings files were found");
}
