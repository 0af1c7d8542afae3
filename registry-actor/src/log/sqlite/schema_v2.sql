-- What lists ask of a process, beside its body: a row of its own, so that a list reads no body that it does not return. All of it
-- follows from the record.
CREATE TABLE listings (
    process_no INTEGER PRIMARY KEY,
    process_id TEXT NOT NULL,
    status TEXT NOT NULL,
    kind TEXT NOT NULL,
    label TEXT,
    definition BLOB,
    originator_session TEXT,
    originator_frame TEXT,
    waiting INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    terminal_at_ms INTEGER,
    wake_session TEXT
) STRICT;

-- Each answers one kind of list in the order of ids; all but the first change once or twice in the life of a process.
DROP INDEX processes_by_status;
CREATE INDEX listings_by_status ON listings (status, process_id);
CREATE INDEX listings_by_kind ON listings (kind, process_id);
CREATE INDEX listings_by_label ON listings (label, process_id) WHERE label IS NOT NULL;
CREATE INDEX listings_by_definition ON listings (definition, process_id) WHERE definition IS NOT NULL;
CREATE INDEX listings_by_originator ON listings (originator_session, process_id) WHERE originator_session IS NOT NULL;
CREATE INDEX listings_waiting ON listings (process_id) WHERE waiting = 1;
CREATE INDEX listings_ended ON listings (terminal_at_ms, process_no) WHERE terminal_at_ms IS NOT NULL;
CREATE INDEX listings_by_wake_session ON listings (wake_session, process_id) WHERE wake_session IS NOT NULL;

CREATE TABLE process_tags (
    tag TEXT NOT NULL,
    process_id TEXT NOT NULL,
    process_no INTEGER NOT NULL,
    PRIMARY KEY (tag, process_id)
) STRICT, WITHOUT ROWID;

-- Who may address a process. The empty frame is the session's own scope.
CREATE TABLE grants (
    session TEXT NOT NULL,
    frame TEXT NOT NULL,
    process_id TEXT NOT NULL,
    codec INTEGER NOT NULL,
    body BLOB NOT NULL,
    checksum BLOB NOT NULL,
    PRIMARY KEY (session, frame, process_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX grants_by_process ON grants (process_id, session, frame);

-- The events that woke somebody. Those with a delivery of their own have the columns from session on.
CREATE TABLE wakes (
    position INTEGER PRIMARY KEY,
    process_no INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    acked INTEGER NOT NULL,
    pending INTEGER NOT NULL,
    session TEXT,
    frame TEXT,
    wake_id TEXT,
    codec INTEGER,
    body BLOB,
    checksum BLOB
) STRICT;

CREATE UNIQUE INDEX wakes_by_sequence ON wakes (process_no, sequence);

CREATE INDEX wakes_open ON wakes (process_no, sequence) WHERE acked = 0;

CREATE UNIQUE INDEX wakes_by_id ON wakes (session, frame, wake_id) WHERE wake_id IS NOT NULL;

CREATE INDEX wakes_pending ON wakes (session, frame, position) WHERE pending = 1;

-- What is left of pruned processes, and deletions of sessions: with the events, the entries of the change feed.
CREATE TABLE tombstones (
    position INTEGER PRIMARY KEY,
    process_id TEXT NOT NULL UNIQUE,
    generation INTEGER NOT NULL,
    codec INTEGER NOT NULL,
    body BLOB NOT NULL,
    checksum BLOB NOT NULL
) STRICT;

CREATE TABLE session_deletions (
    position INTEGER PRIMARY KEY,
    codec INTEGER NOT NULL,
    body BLOB NOT NULL,
    checksum BLOB NOT NULL
) STRICT;
