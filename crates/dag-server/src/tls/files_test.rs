//! Settings of TLS that cannot be used, each with its reason.

use std::net::Ipv4Addr;
use std::time::SystemTime;

use tempfile::TempDir;
use testkit::authority::{Authority, Issued};

use super::*;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 3, 2, 1);

const DAY: Duration = Duration::from_secs(86_400);

/// The files of a node in a folder.
struct Scene {
    folder: TempDir,
    authority: Authority,
}

impl Scene {
    /// All is well.
    fn new() -> Self {
        let (folder, authority) = (TempDir::new().unwrap(), Authority::new("ours").unwrap());
        let scene = Self { folder, authority };
        scene.write("authority.pem", scene.authority.pem());
        scene.show(&scene.authority.issue("n1", &[ADDRESS.into()]).unwrap());
        scene
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn show(&self, issued: &Issued) {
        issued.write(self.folder.path(), "n1").unwrap();
    }

    fn read(&self) -> Result<Files, Vec<String>> {
        let settings = TlsSettings {
            certificate: "n1.pem".into(),
            key: "n1.key".into(),
            authority: "authority.pem".into(),
            ..TlsSettings::default()
        };
        let shown = [("peers", (ADDRESS, 7401).into()), ("admin", (ADDRESS, 7403).into())];
        Places::new(&settings, self.folder.path(), &shown)?.read()
    }

    fn problem(&self) -> String {
        self.read().expect_err("a problem").join("\n")
    }
}

#[test]
fn files_that_belong_together_are_taken_without_a_warning() {
    let files = Scene::new().read().unwrap();
    assert_eq!(files.warnings, []);
    for guests in [Guests::Members, Guests::Clients, Guests::Anyone] {
        assert!(files.server(guests).is_ok(), "{guests:?}");
    }
}

#[test]
fn certificate_key_and_authority_are_given_together() {
    let settings = TlsSettings { key: "n1.key".into(), ..TlsSettings::default() };
    let missing = Places::new(&settings, Path::new("/"), &[]).unwrap_err().join("\n");
    assert!(missing.contains("tls.certificate: not given"), "{missing}");
    assert!(missing.contains("tls.authority: not given"), "{missing}");
    assert!(!missing.contains("tls.key: not given"), "{missing}");
}

#[test]
fn every_file_that_cannot_be_read_is_named_at_once() {
    let scene = Scene::new();
    std::fs::remove_file(scene.folder.path().join("n1.pem")).unwrap();
    scene.write("n1.key", "no key");
    scene.write("authority.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let problem = scene.problem();
    for part in ["tls.certificate: read ", "No such file", "holds no private key in PEM"] {
        assert!(problem.contains(part), "{problem}");
    }
    assert!(problem.contains("tls.authority: ") && problem.contains("holds no usable authority"));
}

#[test]
fn a_file_without_any_certificate_is_no_certificate() {
    let scene = Scene::new();
    scene.write("n1.pem", "hello");
    assert!(scene.problem().contains("holds no certificate in PEM"), "{}", scene.problem());
}

#[test]
fn the_key_of_another_certificate_is_refused() {
    let scene = Scene::new();
    scene.write("n1.key", &scene.authority.issue("n2", &[]).unwrap().key);
    assert!(scene.problem().contains("is not the key of tls.certificate"), "{}", scene.problem());
}

#[test]
fn an_expired_certificate_is_refused() {
    let scene = Scene::new();
    let yesterday = SystemTime::now() - DAY;
    scene.show(&scene.authority.issue_until("n1", &[ADDRESS.into()], yesterday).unwrap());
    assert!(scene.problem().contains("n1.pem has expired"), "{}", scene.problem());
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let scene = Scene::new();
    let other = Authority::new("theirs").unwrap();
    scene.show(&other.issue("n1", &[ADDRESS.into()]).unwrap());
    assert!(scene.problem().contains("n1.pem is not of tls.authority"), "{}", scene.problem());
}

#[test]
fn a_certificate_has_to_name_the_addresses_of_the_node() {
    let scene = Scene::new();
    scene.show(&scene.authority.issue("n1", &[Ipv4Addr::LOCALHOST.into()]).unwrap());
    let problem = scene.problem();
    assert!(problem.contains("does not name 127.3.2.1, the address of listen.peers"), "{problem}");
    assert!(problem.contains("IP:127.3.2.1"), "{problem}");
}

#[test]
fn a_key_that_others_can_read_is_warned_of() {
    let scene = Scene::new();
    let key = scene.folder.path().join("n1.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let warnings = scene.read().unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].code, "TLS_KEY_EXPOSED");
    assert!(warnings[0].text.contains("(mode 640); do: chmod 600 "), "{}", warnings[0].text);
}

#[test]
fn a_certificate_that_ends_soon_is_warned_of() {
    let scene = Scene::new();
    let soon = SystemTime::now() + 10 * DAY;
    scene.show(&scene.authority.issue_until("n1", &[ADDRESS.into()], soon).unwrap());
    let warnings = scene.read().unwrap().warnings;
    assert_eq!(warnings.iter().map(|w| w.code).collect::<Vec<_>>(), ["TLS_CERTIFICATE_ENDS"]);
}
