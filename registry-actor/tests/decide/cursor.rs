//! Change cursors: one text for one cursor, and nothing else reads as one.

use registry_actor::domain::{ChangeCursor, CursorFault, InvalidCursor, RegistrationCursor, WakeCursor};
use serde_json::json;

fn cursor() -> ChangeCursor {
    ChangeCursor::new("store.7".into(), 3, 42, [0, 1, 2, 3, 0xab, 0xcd, 0xef, 0xff])
}

const TEXT: &str = "v1.store.7.3.42.00010203abcdefff";

#[test]
fn a_cursor_survives_its_text() {
    assert_eq!(cursor().to_string(), TEXT);
    assert_eq!(TEXT.parse(), Ok(cursor()));
    assert_eq!(serde_json::to_value(cursor()).expect("has a JSON form"), json!(TEXT));
    assert_eq!(serde_json::from_value::<ChangeCursor>(json!(TEXT)).expect("reads"), cursor());
    assert_eq!((cursor().position(), cursor().link()), (42, [0, 1, 2, 3, 0xab, 0xcd, 0xef, 0xff]));
    for store in ["s", ".", "..", "a.1.2.0000000000000000", "é\n\""] {
        for number in [0, 1, u64::MAX] {
            for link in [[0; 8], [0xff; 8]] {
                let cursor = ChangeCursor::new(store.into(), number, number, link);
                assert_eq!(cursor.to_string().parse(), Ok(cursor.clone()), "{cursor}");
            }
        }
    }
}

#[test]
fn what_is_no_cursor_is_refused_with_what_was_found() {
    let link = "00010203abcdefff";
    let malformed = [
        String::new(),
        "v1".into(),
        "v1.".into(),
        "v1....".into(),
        format!("v2.s.3.42.{link}"),
        format!("V1.s.3.42.{link}"),
        format!(" v1.s.3.42.{link}"),
        format!("v1.s.3.42.{link} "),
        format!("v1..3.42.{link}"),
        format!("v1.3.42.{link}"),
        format!("v1.s.42.{link}"),
        format!("v1.s..42.{link}"),
        format!("v1.s.3..{link}"),
        format!("v1.s.03.42.{link}"),
        format!("v1.s.3.042.{link}"),
        format!("v1.s.+3.42.{link}"),
        format!("v1.s.3.-42.{link}"),
        format!("v1.s.3.4 2.{link}"),
        format!("v1.s.0x3.42.{link}"),
        format!("v1.s.18446744073709551616.42.{link}"),
        format!("v1.s.3.18446744073709551616.{link}"),
        "v1.s.3.42.".into(),
        "v1.s.3.42.00010203abcdeff".into(),
        "v1.s.3.42.00010203abcdefff0".into(),
        "v1.s.3.42.00010203ABCDEFFF".into(),
        "v1.s.3.42.+0010203abcdefff".into(),
        "v1.s.3.42.0x010203abcdefff".into(),
        "v1.s.3.42.éééééééé".into(),
    ];
    for text in malformed {
        let invalid = text.parse::<ChangeCursor>().expect_err(&text);
        assert_eq!(invalid, InvalidCursor { found: text.clone() });
        assert!(invalid.to_string().contains("v1.STORE.EPOCH.POSITION.LINK"), "{invalid}");
        assert!(serde_json::from_value::<ChangeCursor>(json!(text)).is_err());
    }
    for value in [json!(null), json!(7), json!({"position": 7}), json!([])] {
        assert!(serde_json::from_value::<ChangeCursor>(value).is_err());
    }
}

#[test]
fn what_was_found_is_cut_to_what_a_log_line_bears() {
    let invalid = "é".repeat(1_000_000).parse::<ChangeCursor>().expect_err("no cursor");
    assert_eq!(invalid.found, "é".repeat(80));
}

#[test]
fn a_cursor_belongs_to_one_store_in_one_epoch() {
    let cursor = cursor();
    assert_eq!(cursor.check("store.7", 3), Ok(()));
    for epoch in [2, 4] {
        assert_eq!(cursor.check("store.7", epoch), Err(CursorFault::OtherEpoch { expected: epoch, found: 3 }));
    }
    let foreign = CursorFault::Foreign { expected: "store".into(), found: "store.7".into() };
    assert_eq!(cursor.check("store", 3), Err(foreign.clone()));
    assert_eq!(cursor.check("store", 4), Err(foreign), "the store is looked at first");
}

#[test]
fn a_registration_cursor_is_a_number_that_only_a_store_makes() {
    let cursor: RegistrationCursor = serde_json::from_value(json!(7)).expect("reads");
    assert_eq!(serde_json::to_value(cursor).expect("has a JSON form"), json!(7));
    for value in [json!(-1), json!("7"), json!(null), json!(1.5)] {
        assert!(serde_json::from_value::<RegistrationCursor>(value).is_err());
    }
}

#[test]
fn a_wake_cursor_is_a_number_that_only_a_store_makes() {
    let cursor: WakeCursor = serde_json::from_value(json!(7)).expect("reads");
    assert_eq!(serde_json::to_value(cursor).expect("has a JSON form"), json!(7));
    assert!(serde_json::from_value::<WakeCursor>(json!(8)).expect("reads") > cursor);
    for value in [json!(-1), json!("7"), json!(null), json!(1.5)] {
        assert!(serde_json::from_value::<WakeCursor>(value).is_err());
    }
}
