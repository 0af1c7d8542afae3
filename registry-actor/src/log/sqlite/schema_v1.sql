CREATE TABLE meta (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    store_id TEXT NOT NULL,
    store_epoch INTEGER NOT NULL,
    session INTEGER NOT NULL,
    next_position INTEGER NOT NULL
) STRICT;

CREATE TABLE processes (
    process_no INTEGER PRIMARY KEY,
    process_id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    codec INTEGER NOT NULL,
    body BLOB NOT NULL,
    checksum BLOB NOT NULL
) STRICT;

-- One index answers the lists of every status; it changes when a process begins and when it ends.
CREATE INDEX processes_by_status ON processes (status, process_id);

-- Narrow and alone, because it moves at every append.
CREATE TABLE heads (
    process_no INTEGER PRIMARY KEY,
    sequence INTEGER NOT NULL,
    position INTEGER NOT NULL,
    chain BLOB NOT NULL,
    updated_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE leases (
    process_no INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    codec INTEGER NOT NULL,
    body BLOB NOT NULL,
    checksum BLOB NOT NULL
) STRICT;

CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    process_no INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    type TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    replay_key TEXT,
    operation BLOB NOT NULL,
    codec INTEGER NOT NULL,
    data BLOB NOT NULL,
    chain BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX events_by_sequence ON events (process_no, sequence);

CREATE UNIQUE INDEX events_by_replay_key ON events (process_no, replay_key) WHERE replay_key IS NOT NULL;

-- In which blocks of 256 sequences a process has events of a type. An index over all events would answer the same question
-- and cost a quarter of the throughput; this one gets a row when a type is new in a block, and bounds the search to two blocks.
CREATE TABLE type_blocks (
    process_no INTEGER NOT NULL,
    type TEXT NOT NULL,
    block INTEGER NOT NULL,
    PRIMARY KEY (process_no, type, block)
) STRICT, WITHOUT ROWID;
