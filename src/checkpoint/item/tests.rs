use super::*;

fn at(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_770_681_600_000 + ms).unwrap()
}

fn full() -> Checkpoint {
    Checkpoint {
        rollup: "entity_daily".into(),
        slice_start: at(0),
        state: State::Running,
        attempt: COUNT_MAX,
        owner: Some("4f1c".into()),
        lease_until: Some(at(5_001)),
        claimed_from: Some(State::Stale),
        failures: 2,
        retry_at: Some(at(-1)),
        dirty: 3,
        dirty_seen: 2,
        definition: Some("0123456789abcdef".into()),
        horizon: Some(725),
        reason: Some("replay".into()),
        error: Some("refused".into()),
        outcome: Some(Completion {
            rows_read: 9,
            settled_by: "clock".into(),
            open_until: Some(at(9)),
            ..Default::default()
        }),
        reopened_at: Some(at(6)),
        started_at: Some(at(7)),
        finished_at: Some(at(8)),
    }
}

fn complaint(name: &str, value: Option<Value>) -> String {
    let mut item = full().to_item();
    match value {
        Some(value) => item.insert(name.into(), value),
        None => item.remove(name),
    };
    Checkpoint::from_item(&item).unwrap_err().to_string()
}

#[test]
fn a_checkpoint_reads_the_item_it_writes() {
    let bare = Checkpoint {
        state: State::Succeeded,
        owner: None,
        lease_until: None,
        claimed_from: None,
        retry_at: None,
        definition: None,
        horizon: None,
        reason: None,
        error: None,
        outcome: None,
        reopened_at: None,
        started_at: None,
        finished_at: None,
        ..full()
    };
    for checkpoint in [full(), bare] {
        assert_eq!(Checkpoint::from_item(&checkpoint.to_item()).unwrap(), checkpoint);
    }
}

#[test]
fn only_a_succeeded_slice_is_absent_from_the_sparse_index() {
    for state in State::ALL {
        let item = Checkpoint { state, ..full() }.to_item();
        assert_eq!(item.contains_key(UNFINISHED), state != State::Succeeded);
    }
}

#[test]
fn an_item_edited_by_hand_is_refused_with_its_key_and_attribute() {
    let message = complaint("lease_until", Some(text("tomorrow")));
    assert!(message.contains("entity_daily@2026-02-10T00:00:00Z"), "{message}");
    assert!(message.contains("`lease_until` is not a number"), "{message}");
    let message = complaint("state", Some(text("done")));
    assert!(message.contains("`state` holds \"done\""), "{message}");
    let message = complaint("attempt", Some(Value::Number("-1".into())));
    assert!(message.contains("`attempt` holds -1"), "{message}");
    let message = complaint("started_at", Some(text("noon")));
    assert!(message.contains("`started_at` holds \"noon\""), "{message}");
    let message = complaint("sk", Some(text("yesterday")));
    assert!(message.contains("entity_daily@yesterday"), "{message}");
    for name in ["pk", "sk", "state", "attempt", "lease_until", "groups", "settled_by"] {
        let message = complaint(name, None);
        assert!(message.contains(&format!("`{name}` is missing")), "{message}");
    }
}
