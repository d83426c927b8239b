//! Lists of images that `apply` has made: what only they themselves know is asked of them where it matters.

use super::super::support::{Datacenter, NOW};
use super::Server;

/// Each request by a server that has read none of the images yet.
#[test]
fn a_filter_finds_the_same_whatever_fields_are_asked_for() {
    let datacenter = Datacenter::new();
    datacenter.run_to(0, &["apply", "--auto-approve", "--now", NOW]);
    let list = |query: &str| {
        let server = Server::start(&datacenter, &[]);
        let list = server.get(&format!("/global/machineImages?{query}"));
        server.stop();
        list["items"].as_array().cloned().unwrap_or_default()
    };
    let all = list("filter=description:*");
    assert!(all.len() > 1, "{all:?}");
    for query in [
        "filter=description:*&fields=items(name)",
        "filter=-description%3Dnone+(NOT+sourceInstanceProperties.machineType:none)&fields=items/name",
        "filter=savedDisks.sourceDisk:*&fields=kind,items(name,id)",
        "filter=description+eq+%22.%2B%22&fields=items(name)&orderBy=creationTimestamp+desc",
    ] {
        let found = list(query);
        assert_eq!(found.len(), all.len(), "{query}");
        assert!(found.iter().all(|item| item.get("description").is_none()), "{query}: {found:?}");
    }
    // What is asked for whole is shown whole.
    for query in ["fields=items", "fields=kind,items/*", "fields=*", "fields=items(description)"] {
        let shown = list(query);
        assert!(shown.iter().all(|item| item["description"].is_string()), "{query}: {shown:?}");
    }
}
