-- Whose owner lock has excluded whom: sessions of one store are told apart by number only within one lineage. A store that was
-- made has the empty one; a restoration that has not proved the end of the original begins another.
ALTER TABLE meta ADD COLUMN lineage TEXT NOT NULL DEFAULT '';
