CREATE OR REPLACE FUNCTION tallymark.{name}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $capture$
-- Sees to it that the hours of a late change are marked for Tallymark. Called for late rows only:
-- the triggers' WHEN conditions decide. Once a transaction and hour: those that are marked stand in
-- a setting that is local to the transaction, after the seconds of the unit that they are counted in
-- (`3600,0:490896,0:490895,`), the newest first; `*`: all of time is marked.
--
-- This runs for each row of a late bulk load, and setting a search_path would take longer than all of
-- it. So every type, function and operator has its schema here, and no name is looked up in a
-- path that the session could choose. What is done with the owner's rights is {name}_mark's.
DECLARE
    seen pg_catalog.text := pg_catalog.current_setting('tallymark.{name}', true);
BEGIN
    IF seen IS NULL OR seen OPERATOR(pg_catalog.=) '' OR seen OPERATOR(pg_catalog.=) '*'
        OR TG_OP OPERATOR(pg_catalog.=) 'TRUNCATE'
    THEN
        IF seen OPERATOR(pg_catalog.=) '*' THEN
            RETURN NULL;
        END IF;
        seen := tallymark.{name}_mark(
            CASE WHEN TG_OP OPERATOR(pg_catalog.<>) 'TRUNCATE' THEN TG_RELID END, NULL, NULL, NULL, NULL);
        IF seen OPERATOR(pg_catalog.=) '*' THEN
            RETURN NULL;
        END IF;
    END IF;
{axes}
    RETURN NULL;
END
$capture$
