CREATE OR REPLACE FUNCTION tallymark.{name}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS {quote}
-- Marks the hours of a late change for Tallymark, each once per transaction. The triggers' WHEN
-- conditions decide which change is late. The setting `tallymark.{name}` lists the units that the
-- transaction has marked: the seconds of the unit, then each unit with the place of its mark
-- (`3600;0:490896=(0,7);`), the newest first. Every session can write that setting, so the list
-- only says where to look. An hour counts as marked only if the row at that place is a mark of this
-- same transaction and covers it.
--
-- Reading a row of the same transaction by its place takes no lock that a SERIALIZABLE transaction
-- could fail on.
--
-- This runs for each row of a late bulk load, and setting a search_path would take longer than all
-- of it. So every type, function and operator has its schema here, and each function is written in
-- C with one kind of argument. Functions written in SQL would look up names in the session's path.
-- {name}_mark does the writing.
DECLARE
    seen pg_catalog.text := pg_catalog.current_setting('tallymark.{name}', true);
    key pg_catalog.text;
    place pg_catalog.text;
    is_marked boolean;
BEGIN
    IF TG_OP OPERATOR(pg_catalog.=) 'TRUNCATE'::pg_catalog.text THEN
        seen := tallymark.{name}_mark(NULL::pg_catalog.oid, NULL::pg_catalog.text,
            NULL::pg_catalog.text, NULL::double precision, NULL::double precision);
        RETURN NULL;
    END IF;
    IF seen IS NULL OR NOT (pg_catalog.starts_with(seen, '3600;'::pg_catalog.text)
        OR pg_catalog.starts_with(seen, '86400;'::pg_catalog.text)
        OR pg_catalog.starts_with(seen, '2764800;'::pg_catalog.text))
    THEN
        seen := tallymark.{name}_mark(TG_RELID, NULL::pg_catalog.text,
            NULL::pg_catalog.text, NULL::double precision, NULL::double precision);
        IF seen IS NULL THEN
            RETURN NULL;
        END IF;
    END IF;
{axes}
    RETURN NULL;
END
