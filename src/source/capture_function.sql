CREATE OR REPLACE FUNCTION tallymark.{name}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $capture$
-- Marks the hours of late changes for Tallymark. Called for late rows only: the triggers' WHEN
-- conditions decide. Once a transaction and hour, by a list in a setting that is local to the
-- transaction; past {list_max} bytes of it the unit is a day, then 32 days. Writers never wait for
-- each other: marks are only ever added.
DECLARE
    seen text := current_setting('tallymark.{name}', true);
    first_hour bigint;
    last_hour bigint;
    width bigint;
    key text;
BEGIN
    IF seen = '*' THEN
        RETURN NULL;
    END IF;
    IF coalesce(seen, '') = '' THEN
        -- The first time in this transaction. A renamed column must not break the application's
        -- writes, and a missing table of marks neither; `tallymark check` tells of both.
        IF to_regclass('tallymark.mark') IS NULL THEN
            RETURN NULL;
        END IF;
        IF TG_OP = 'TRUNCATE' OR {columns_max} <> (
            SELECT count(*) FROM pg_attribute
            WHERE attrelid = TG_RELID AND NOT attisdropped AND attname IN ({columns})
        ) THEN
            seen := '*';
        END IF;
    END IF;
    IF TG_OP = 'TRUNCATE' OR seen = '*' THEN
        INSERT INTO tallymark.mark (capture, axis) VALUES {everything};
        PERFORM set_config('tallymark.{name}', '*', true);
        RETURN NULL;
    END IF;
    seen := coalesce(nullif(seen, ''), ',');
    width := CASE WHEN length(seen) < {list_max} THEN 1 WHEN length(seen) < 2 * {list_max} THEN 24 ELSE 768 END;
{axes}
    PERFORM set_config('tallymark.{name}', seen, true);
    RETURN NULL;
END
$capture$
