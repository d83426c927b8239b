//! What the service makes of what it was asked for.

use super::*;

#[tokio::test]
async fn what_the_service_alters_is_deleted_and_not_asked_for_again() {
    for fault in ["other-name", "other-description"] {
        for (method, collection) in [("PUT", "images"), ("POST", "snapshots")] {
            let service = Arc::new(Served::twcc());
            let case = case(&service, "");
            let engine = service.open(clock(0));
            service.fault(json!({"fault": fault, "method": method})).await;
            let ended = engine.create(case.request(0), Arc::new(Unwatched)).await;
            let Err(EngineError::Failed(message)) = ended else { panic!("{ended:?}") };
            assert!(message.contains("another name or description"), "{message}");
            assert!(message.contains("was deleted again"), "{message}");
            assert_eq!(service.of(collection).await.len(), 0);
            let before = service.images().await.len();
            let again = engine.create(case.request(0), Arc::new(Unwatched)).await;
            let Err(EngineError::Refused(message)) = again else { panic!("{again:?}") };
            assert!(message.contains("nothing more is asked for"), "{message}");
            assert_eq!(service.images().await.len(), before);
        }
    }
}

#[tokio::test]
async fn what_is_altered_and_cannot_be_deleted_is_named() {
    let service = Arc::new(Served::twcc_with_system_disks());
    let case = case(&service, "");
    service.fault(json!({"fault": "other-name", "method": "PUT"})).await;
    service.fault(json!({"fault": "forbidden", "method": "DELETE", "times": 9})).await;
    let ended = service.open(clock(0)).create(case.request(0), Arc::new(Unwatched)).await;
    let message = ended.unwrap_err().to_string();
    let [image] = &service.images().await[..] else { panic!("it stays") };
    assert!(message.contains(&format!("images {}", image["id"])), "{message}");
    assert!(message.contains("it stays, because it cannot be deleted"), "{message}");
}

/// A set whose members are of two times is none, and nobody is told that it was made.
#[tokio::test]
async fn only_what_is_ready_was_made() {
    let service = Arc::new(Served::twcc());
    let case = case(&service, "");
    let engine = service.open(clock(0));
    engine.create(case.request(0), Arc::new(Unwatched)).await.unwrap();
    let snapshot = service.of("snapshots").await.remove(0);
    service.ask("DELETE", &format!("snapshots/{}", snapshot["id"]), None).await;
    service.pass(Duration::from_hours(3));
    let volume: u64 = snapshot["volume"]["id"].as_str().unwrap().parse().unwrap();
    let body = json!({"name": snapshot["name"], "desc": snapshot["desc"], "volume": volume});
    service.ask("POST", "snapshots", Some(body)).await;
    while service.of("snapshots").await[0]["status"] != "AVAILABLE" {
        tokio::task::yield_now().await;
    }
    let engine = service.engine(|_, _| async {});
    let ended = engine.create(case.request(0), Arc::new(Unwatched)).await;
    let Err(EngineError::Failed(message)) = ended else { panic!("{ended:?}") };
    assert!(message.contains("captured 3h apart"), "{message}");
}

#[tokio::test]
async fn refusals_of_a_new_image_are_passed_on() {
    for (fault, is_refused, said) in [
        ("unauthorized", false, "the API key is not taken"),
        ("forbidden", true, "they or a tenant administrator"),
        ("bad-field", true, "desc: Not a valid string."),
    ] {
        let service = Arc::new(Served::twcc_with_system_disks());
        let case = case(&service, "");
        service.fault(json!({"fault": fault, "method": "PUT"})).await;
        let ended = service.open(clock(0)).create(case.request(0), Arc::new(Unwatched)).await;
        let error = ended.unwrap_err();
        assert_eq!(matches!(error, EngineError::Refused(_)), is_refused, "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(service.images().await.len(), 0);
    }
}

#[tokio::test]
async fn a_server_that_does_not_say_its_system_is_not_imaged() {
    let service = Arc::new(Served::twcc_with_system_disks());
    let case = case(&service, "");
    service.fault(json!({"fault": "bare", "collection": "servers"})).await;
    let ended = service.open(clock(0)).create(case.request(0), Arc::new(Unwatched)).await;
    let Err(EngineError::Refused(message)) = ended else { panic!("{ended:?}") };
    assert!(message.contains("`os_version`"), "{message}");
    assert_eq!(service.images().await.len(), 0);
}

#[tokio::test]
async fn a_site_has_one_server() {
    for (fault, count) in [("nothing", 0), ("doubled", 2)] {
        let service = Arc::new(Served::twcc_with_system_disks());
        let case = case(&service, "");
        service.fault(json!({"fault": fault, "collection": "servers", "times": 2})).await;
        let seen = case.observe(0).await;
        let said = format!("has {count} servers instead of one");
        for instance in &seen.instances {
            let problem = instance.disks[0].problem.as_ref().unwrap();
            assert!(problem.contains(&said), "{problem}");
        }
        let ended = service.open(clock(0)).create(case.request(0), Arc::new(Unwatched)).await;
        let Err(EngineError::Failed(message)) = ended else { panic!("{ended:?}") };
        assert!(message.contains("has not one server"), "{message}");
    }
}
