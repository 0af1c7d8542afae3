-- The columns stand before the body: a row is read up to the last column that is asked for, and a body may fill many pages.
ALTER TABLE processes RENAME TO processes_v1;

DROP INDEX processes_by_status;

CREATE TABLE processes (
    process_no INTEGER PRIMARY KEY,
    process_id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    kind TEXT NOT NULL,
    label TEXT,
    -- Digest of the canonical JSON.
    definition BLOB,
    -- NULL is the host itself.
    originator_session TEXT,
    -- Empty is the session's own scope.
    originator_frame TEXT NOT NULL,
    waiting INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    terminal_at_ms INTEGER,
    wake_session TEXT,
    generation INTEGER NOT NULL,
    codec INTEGER NOT NULL,
    body BLOB NOT NULL,
    checksum BLOB NOT NULL
) STRICT;

-- Each of these is walked in the order of ids, so that a page of a list is a range of one index.
CREATE INDEX processes_by_status ON processes (status, process_id);

CREATE INDEX processes_by_kind ON processes (kind, process_id);

CREATE INDEX processes_by_label ON processes (label, process_id) WHERE label IS NOT NULL;

CREATE INDEX processes_by_definition ON processes (definition, process_id) WHERE definition IS NOT NULL;

CREATE INDEX processes_by_originator ON processes (originator_session, process_id);

CREATE INDEX processes_waiting ON processes (process_id) WHERE waiting = 1;

CREATE INDEX processes_by_wake_session ON processes (wake_session, process_id) WHERE wake_session IS NOT NULL;

CREATE INDEX processes_ended ON processes (terminal_at_ms, process_no) WHERE terminal_at_ms IS NOT NULL;

CREATE TABLE process_tags (
    tag TEXT NOT NULL,
    process_id TEXT NOT NULL,
    process_no INTEGER NOT NULL,
    PRIMARY KEY (tag, process_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX process_tags_by_process ON process_tags (process_no);

-- An empty frame is the session's own scope.
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

-- One row for each event that wakes, with its delivery where there is a target and the target has no delivery of that id yet.
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

CREATE UNIQUE INDEX wakes_by_id ON wakes (session, frame, wake_id) WHERE wake_id IS NOT NULL;

CREATE INDEX wakes_pending ON wakes (session, frame, position) WHERE pending = 1;

CREATE INDEX wakes_unacked ON wakes (process_no, sequence) WHERE acked = 0;

-- What is left of pruned processes: the last life of an id each. The position is that of the prune in the change feed.
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
