-- Lists that begin at the newest process: each index is walked backwards in the order of registrations. Kinds, definitions and
-- originators have none: a list by one of them is a walk along all processes, or along those of a status.
CREATE INDEX processes_recent_by_status ON processes (status, process_no);

CREATE INDEX processes_recent_by_label ON processes (label, process_no) WHERE label IS NOT NULL;

CREATE INDEX process_tags_recent ON process_tags (tag, process_no);
