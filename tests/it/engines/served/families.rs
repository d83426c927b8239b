//! Which image of a family is the newest: the family, lists and the engine say the same.

use stillframe::engine::{Author, CreateRequest, Created, Unwatched};

use super::super::clock;
use super::*;

#[tokio::test]
async fn of_images_of_one_moment_the_last_is_the_newest() {
    let served = Arc::new(Served::gce());
    let engine = served.open(clock(0));
    for name in ["g-1", "g-3", "g-2"] {
        let body = json!({"name": name, "family": "golden", "sourceDisk": "zones/hall-a/disks/web-1-boot"});
        served.compute("POST", "global/images?forceCreate=true", body).await;
    }
    let all = served.compute("GET", "global/images", Value::Null).await;
    let times: Vec<&Value> =
        all["items"].as_array().unwrap().iter().map(|image| &image["creationTimestamp"]).collect();
    assert!(times.len() == 3 && times.iter().all(|time| *time == times[0]), "{times:?}");

    let family = served.compute("GET", "global/images/family/golden", Value::Null).await;
    assert_eq!(family["name"], "g-2");
    let (mut listed, mut token) = (Vec::new(), String::new());
    loop {
        let path = format!(
            "global/images?orderBy=creationTimestamp%20desc&maxResults=1&pageToken={token}"
        );
        let page = served.compute("GET", &path, Value::Null).await;
        listed.push(page["items"][0]["name"].as_str().unwrap().to_owned());
        let Some(next) = page["nextPageToken"].as_str() else { break };
        next.clone_into(&mut token);
    }
    assert_eq!(listed, ["g-2", "g-3", "g-1"]);

    // The example has a template that names the family. The engine does not know which of them was
    // made last, and lets go of none that may be the newest.
    let inventory = engine.observe().await;
    let used: Vec<&str> = inventory
        .images
        .iter()
        .filter(|image| image.in_use_by == ["instance template web"])
        .map(|image| image.name.as_str())
        .collect();
    assert!(["g-1", "g-2", "g-3"].iter().all(|name| used.contains(name)), "{used:?}");
}

/// Who has made an image is read in its description, and nothing else hangs on it.
#[tokio::test]
async fn a_description_that_somebody_changes_changes_nothing() {
    let served = Arc::new(Served::gce_with_disk_images());
    let case = Case {
        bench: Box::new(Arc::clone(&served)),
        directory: tempfile::tempdir().unwrap(),
        spec: "  retention: {last: 1}\n  lifecycle: {grace: 1d}\n",
    };
    case.round(0).await;
    let made = case.observe(0).await.images;
    assert_eq!(made.len(), 2);
    for (image, description) in made.iter().zip([json!("mine (by ci-7)"), Value::Null]) {
        let path = format!("global/images/{}", image.name);
        served.compute("PATCH", &path, json!({"description": description})).await;
        let shown = served.compute("GET", &path, Value::Null).await;
        assert_eq!(shown["description"], description);
    }
    assert_eq!(case.observe(0).await.images, made);
    case.nothing_to_do(0).await;
    // Who asks for one of them again finds it, and is told what it says now.
    let request = CreateRequest { by: Author::new("ci-8"), ..case.request(0) };
    let first = made.iter().position(|image| image.name == request.name).unwrap();
    let found = served.open(clock(0)).create(request, Arc::new(Unwatched)).await.unwrap();
    let says = [Author::new("ci-7"), None][first].clone();
    let is_it = |image: &Image| image.id == made[first].id;
    assert!(matches!(&found, Created::Found { image, by } if is_it(image) && *by == says));
    // They are let go and deleted as they would have been.
    case.round(1).await;
    case.nothing_to_do(1).await;
    let is_old = |image: &&Image| made.iter().any(|one| one.id == image.id);
    let seen = case.observe(1).await.images;
    let stages: Vec<Stage> = seen.iter().filter(is_old).map(|image| image.stage).collect();
    assert_eq!(stages, [Stage::Deprecated; 2]);
    case.round(2).await;
    assert_eq!(case.observe(2).await.images.iter().filter(is_old).count(), 0);
}

/// The pages of the service do not agree on whether it does that.
#[tokio::test]
async fn a_deprecation_that_cannot_be_taken_back_is_kept_as_it_is() {
    let served = Arc::new(Served::gce_with_disk_images());
    let case = |spec| Case {
        bench: Box::new(Arc::clone(&served)),
        directory: tempfile::tempdir().unwrap(),
        spec,
    };
    let short = case("  retention: {last: 1}\n  lifecycle: {grace: 1d}\n");
    for day in 0..2 {
        short.round(day).await;
    }
    let images = short.observe(1).await.images;
    let old = |image: &&Image| image.created_at < noon(1);
    assert!(images.iter().filter(old).all(|image| image.stage == Stage::Deprecated));

    // Somebody has second thoughts, and the service says no.
    let long = case("  retention: {last: 3}\n  lifecycle: {grace: 1d}\n");
    served.fault(json!({"fault": "final-deprecation", "times": 100})).await;
    let round = long.round(1).await;
    let failed = |outcome: &&Outcome| matches!(outcome.ending, Ending::Failed { .. });
    assert_eq!(round.outcomes.iter().find(failed), None);
    assert_eq!(round.plan.summary.reactivate, 2);
    long.nothing_to_do(1).await;
    let kept = long.observe(1).await.images;
    assert!(kept.iter().all(|image| image.let_go_at().is_none()), "{kept:#?}");
    assert!(kept.iter().filter(old).all(|image| image.stage == Stage::Deprecated));

    // With a new mark it goes, a grace later.
    short.round(1).await;
    assert_eq!(short.observe(1).await.images.len(), 4);
    short.nothing_to_do(1).await;
    short.round(2).await;
    assert_eq!(short.observe(2).await.images.iter().filter(old).count(), 0);
}
