//! Session scopes: one value for one scope, however it was written.

use registry_actor::domain::{Limits, ProcessOriginator, Refusal, SessionScope};
use serde_json::json;

use crate::world::*;

#[test]
fn an_empty_frame_is_the_session_itself() {
    let session = SessionScope::session("s");
    assert_eq!(SessionScope::frame("s", ""), session);
    for written in [
        json!({"session_id": "s"}),
        json!({"session_id": "s", "agent_frame_id": ""}),
        json!({"session_id": "s", "agent_frame_id": null}),
    ] {
        let read: SessionScope = serde_json::from_value(written.clone()).expect("a scope");
        assert_eq!(read, session, "{written}");
        assert_eq!(read.agent_frame_id(), None);
        assert_eq!(serde_json::to_value(&read).expect("has a JSON form"), json!({"session_id": "s"}));
    }
}

#[test]
fn a_frame_is_another_scope_than_its_session() {
    let frame = SessionScope::frame("s", "f");
    assert_ne!(frame, SessionScope::session("s"));
    assert_eq!((frame.session_id(), frame.agent_frame_id()), ("s", Some("f")));
    assert_eq!(frame.id().as_str(), "session:s/frame:f");
    assert_eq!(SessionScope::session("s").id().to_string(), "session:s");
    let written = json!({"session_id": "s", "agent_frame_id": "f"});
    assert_eq!(serde_json::to_value(&frame).expect("has a JSON form"), written);
    assert_eq!(serde_json::from_value::<SessionScope>(written).expect("a scope"), frame);
    assert!(SessionScope::session("").is_empty() && !frame.is_empty());
}

/// The rendered id does not tell these apart, so nothing is keyed by it.
#[test]
fn scopes_that_render_alike_are_still_two() {
    let (frame, session) = (SessionScope::frame("s", "f"), SessionScope::session("s/frame:f"));
    assert_eq!(frame.id(), session.id());
    assert_ne!(frame, session);
}

#[test]
fn the_session_itself_comes_before_its_frames() {
    let mut scopes = [SessionScope::frame("a", "f"), SessionScope::session("b"), SessionScope::session("a")];
    scopes.sort();
    assert_eq!(scopes, [SessionScope::session("a"), SessionScope::frame("a", "f"), SessionScope::session("b")]);
}

/// Wherever a command names a scope, the same is refused.
#[test]
fn a_scope_names_a_session_that_a_store_takes() {
    let long = "x".repeat(Limits::NAME_BYTES + 1);
    let longest = "x".repeat(Limits::NAME_BYTES);
    let session = "session id";
    let frame = "agent frame id";
    let cases = [
        (SessionScope::session(""), Refusal::EmptyName { what: session.into() }),
        (SessionScope::session(" "), Refusal::EmptyName { what: session.into() }),
        (SessionScope::frame("s", " "), Refusal::EmptyName { what: frame.into() }),
        (SessionScope::session("s\t"), Refusal::ControlCharacter { what: session.into(), found: '\t' }),
        (SessionScope::frame("s", "\u{0}"), Refusal::ControlCharacter { what: frame.into(), found: '\u{0}' }),
        (SessionScope::session(long.clone()), too_large(session, Limits::NAME_BYTES, Limits::NAME_BYTES + 1)),
        (SessionScope::frame("s", long), too_large(frame, Limits::NAME_BYTES, Limits::NAME_BYTES + 1)),
    ];
    for (scope, refusal) in cases {
        let mut registered = registration();
        registered.wake_target = Some(scope.clone());
        assert_eq!(World::empty().refusal(register(registered)), refusal);
        let mut registered = registration();
        registered.provenance.originator = ProcessOriginator::Session { scope: scope.clone() };
        assert_eq!(World::empty().refusal(register(registered)), refusal);
        let request = note(json!(1)).with_wake_target_scope(scope);
        assert_eq!(World::registered().refusal(append(request)), refusal);
    }
    let mut registered = registration();
    registered.wake_target = Some(SessionScope::frame(longest.clone(), longest));
    World::of(registered);
}
