-- Deletes those of some marks that every consumer has acknowledged, together with their
-- acknowledgements.
WITH gone AS (
    DELETE FROM tallymark.mark m
    WHERE m.capture = {capture} AND ({marks}) AND NOT EXISTS (
        SELECT FROM tallymark.consumer c
        WHERE c.capture = m.capture AND c.id <> ALL ('{{{mine}}}'::bigint[]) AND NOT EXISTS (
            SELECT FROM tallymark.taken t WHERE t.mark = m.id AND t.consumer = c.id
        )
    )
    RETURNING m.id
)
DELETE FROM tallymark.taken t USING gone WHERE t.mark = gone.id
