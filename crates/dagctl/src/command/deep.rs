//! `dagctl db verify --deep`: what copies hold of every mailbox, at one mark.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use dag_api::admin::v1::{CompareMailboxesRequest, DifferingMailbox, ListMailboxesRequest};
use serde::Serialize;

use super::db::Verdict;
use crate::admin::{Admin, Client};
use crate::failure::Failure;
use crate::output::{hex, table};

/// How long nodes may read for one page.
const ATTEMPT: Duration = Duration::from_secs(250);
/// Mailboxes that are named; the rest is counted.
const NAMED: usize = 100;

/// The answer of `db verify --deep` for one database.
#[derive(Debug, Serialize)]
pub struct Deep {
    /// Mailboxes that were compared.
    pub compared: u64,
    /// The nodes whose copies were.
    pub nodes: Vec<String>,
    /// Mailboxes that are not the same everywhere; the first hundred.
    pub differing: Vec<Differing>,
    /// How many they are in all.
    pub differing_count: u64,
    /// What to do about it.
    pub advice: Vec<String>,
}

/// A mailbox that is not the same everywhere.
#[derive(Debug, Serialize)]
pub struct Differing {
    /// Its id.
    pub mailbox_id: String,
    /// Its address; null where the directory does not know it.
    pub address: Option<String>,
    /// Nodes whose copies are alone with what they hold, where most others agree.
    pub alone: Vec<String>,
    /// Copy by copy.
    pub copies: Vec<OnCopy>,
}

/// What one copy holds of it.
#[derive(Debug, Serialize)]
pub struct OnCopy {
    /// Its node.
    pub node: String,
    /// Null: nothing.
    pub digest: Option<String>,
    /// Rows that name it.
    pub rows: u64,
}

/// Compares all mailboxes of the copies that reached the mark.
pub async fn compare(verdict: &Verdict, admin: &Admin) -> Result<Deep, Failure> {
    let known: BTreeMap<u64, String> = verdict
        .copies
        .iter()
        .filter(|copy| copy.digest.is_some())
        .map(|copy| (copy.node_id, copy.node.clone()))
        .collect();
    let mut request = CompareMailboxesRequest {
        database_name: verdict.database.clone(),
        mark_index: verdict.mark_index,
        node_ids: known.keys().copied().collect(),
        after: Bytes::new(),
    };
    let (mut compared, mut count, mut differing) = (0, 0, Vec::new());
    loop {
        let call = |mut client: Client| {
            let request = request.clone();
            async move { client.compare_mailboxes(request).await }
        };
        let what = format!("Cannot compare the mailboxes of {}.", verdict.database);
        let answer = admin.change(&what, ATTEMPT, call).await?;
        compared += answer.compared;
        count += answer.differing.len() as u64;
        let room = NAMED - differing.len();
        differing.extend(answer.differing.iter().take(room).map(|found| line(found, &known)));
        if answer.next.is_empty() {
            break;
        }
        request.after = answer.next;
    }
    name(&mut differing, &verdict.database, admin).await?;
    let advice = advice(&verdict.database, &differing);
    let nodes = known.into_values().collect();
    Ok(Deep { compared, nodes, differing, differing_count: count, advice })
}

fn line(found: &DifferingMailbox, names: &BTreeMap<u64, String>) -> Differing {
    let name = |node: u64| names.get(&node).cloned().unwrap_or_else(|| node.to_string());
    let copies: Vec<OnCopy> = found
        .copies
        .iter()
        .map(|copy| OnCopy {
            node: name(copy.node_id),
            digest: (!copy.digest.is_empty()).then(|| hex(&copy.digest)),
            rows: copy.rows,
        })
        .collect();
    let (mailbox_id, address, alone) = (found.mailbox_id.clone(), None, alone(&copies));
    Differing { mailbox_id, address, alone, copies }
}

/// Those that hold something else than more than half of all copies do.
fn alone(copies: &[OnCopy]) -> Vec<String> {
    let same = |one: &&OnCopy| copies.iter().filter(|copy| copy.digest == one.digest).count();
    let Some(most) = copies.iter().find(|one| 2 * same(one) > copies.len()) else {
        return Vec::new();
    };
    let others = copies.iter().filter(|copy| copy.digest != most.digest);
    others.map(|copy| copy.node.clone()).collect()
}

/// Finds the addresses of differing mailboxes in the directory.
async fn name(found: &mut [Differing], database: &str, admin: &Admin) -> Result<(), Failure> {
    let wanted: HashSet<String> = found.iter().map(|one| one.mailbox_id.clone()).collect();
    let mut names: HashMap<String, String> = HashMap::new();
    let mut request = ListMailboxesRequest {
        database_name: database.to_owned(),
        page_size: 1_000,
        page_token: String::new(),
    };
    while names.len() < wanted.len() {
        let call = |mut client: Client| {
            let request = request.clone();
            async move { client.list_mailboxes(request).await }
        };
        let page = admin.ask("Cannot list the mailboxes.", call).await?;
        let entries = page.mailboxes.into_iter().filter(|one| wanted.contains(&one.mailbox_id));
        names.extend(entries.map(|one| (one.mailbox_id, one.address)));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    for one in found {
        one.address = names.get(&one.mailbox_id).cloned();
    }
    Ok(())
}

fn advice(database: &str, differing: &[Differing]) -> Vec<String> {
    let mut nodes: Vec<&String> = differing.iter().flat_map(|one| &one.alone).collect();
    nodes.sort();
    nodes.dedup();
    let mut advice: Vec<String> = nodes
        .into_iter()
        .map(|node| {
            format!(
                "the copy on {node} is alone with what it holds: `dagctl copy reseed \
                 {database}@{node}` builds it anew; where it is active, `dagctl db move {database}` \
                 first"
            )
        })
        .collect();
    if differing.iter().any(|one| one.alone.is_empty()) {
        advice.push(
            "where no majority of the copies agrees nobody can tell which one is right: look into \
             the mailbox on each (`dagctl db move`), then reseed the others with `--from`"
                .into(),
        );
    }
    advice
}

/// For people.
pub fn show(deep: &Deep) -> String {
    if deep.differing.is_empty() {
        let nodes = deep.nodes.join(", ");
        return format!("{} mailboxes are the same on {nodes}", deep.compared);
    }
    let rows = deep.differing.iter().flat_map(|one| {
        one.copies.iter().map(|copy| {
            [
                one.address.clone().unwrap_or_else(|| one.mailbox_id.clone()),
                copy.node.clone(),
                copy.digest.as_ref().map_or("-".to_owned(), |digest| digest[..16].to_owned()),
                copy.rows.to_string(),
                if one.alone.contains(&copy.node) { "alone" } else { "" }.to_owned(),
            ]
        })
    });
    let mut text = format!(
        "{} of {} mailboxes differ\n{}",
        deep.differing_count,
        deep.compared,
        table(["MAILBOX", "NODE", "DIGEST", "ROWS", ""], rows)
    );
    for advice in &deep.advice {
        text.push_str(&format!("\n{advice}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copies(digests: &[Option<&str>]) -> Vec<OnCopy> {
        let one = |(number, digest): (usize, &Option<&str>)| OnCopy {
            node: format!("n{number}"),
            digest: digest.map(str::to_owned),
            rows: 1,
        };
        digests.iter().enumerate().map(one).collect()
    }

    #[test]
    fn alone_is_who_differs_from_more_than_half_of_all() {
        assert_eq!(alone(&copies(&[Some("a"), Some("a"), Some("b")])), ["n2"]);
        assert_eq!(alone(&copies(&[Some("a"), None, Some("a")])), ["n1"]);
        assert_eq!(alone(&copies(&[None, None, Some("b")])), ["n2"]);
        for undecided in [&[Some("a"), Some("b")][..], &[Some("a"), Some("b"), Some("c")]] {
            assert!(alone(&copies(undecided)).is_empty(), "{undecided:?}");
        }
    }

    #[test]
    fn what_differs_is_shown_with_what_can_be_done() {
        let copies = copies(&[Some("0123456789abcdef0"), Some("0123456789abcdef0"), None]);
        let (mailbox_id, address) = ("m1".to_owned(), Some("ann@example.org".to_owned()));
        let differing = vec![Differing { mailbox_id, address, alone: vec!["n2".into()], copies }];
        let advice = advice("DB1", &differing);
        let nodes = vec!["n0".into(), "n1".into(), "n2".into()];
        let text = show(&Deep { compared: 7, nodes, differing, differing_count: 1, advice });
        for part in ["1 of 7", "ann@example.org", "alone", "dagctl copy reseed DB1@n2"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
