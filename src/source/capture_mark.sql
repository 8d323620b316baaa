CREATE OR REPLACE FUNCTION tallymark.{name}_mark(
    relation oid, axis text, key text, first_second double precision, last_second double precision
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $capture$
-- Marks what is not marked yet in this transaction, and returns the list of what is. Without a key:
-- the transaction's first late row, of this relation; without a relation either: a TRUNCATE. Past
-- {hours_max} bytes of hours the unit is a day, past {days_max} bytes of days it is 32 days. Writers
-- never wait for each other: marks are only ever added.
DECLARE
    seen text := coalesce(current_setting('tallymark.{name}', true), '');
    unit bigint;
    first_hour bigint;
    last_hour bigint;
BEGIN
    IF key IS NULL THEN
        -- A renamed column must not break the application's writes, and a missing table of marks
        -- neither; `tallymark check` tells of both.
        IF to_regclass('tallymark.mark') IS NULL THEN
            RETURN '*';
        END IF;
        IF relation IS NULL OR {columns_max} <> (
            SELECT count(*) FROM pg_attribute
            WHERE attrelid = relation AND NOT attisdropped AND attname IN ({columns})
        ) THEN
            INSERT INTO tallymark.mark (capture, axis) VALUES {everything};
            seen := '*';
        ELSE
            seen := '3600,';
        END IF;
    ELSE
        unit := split_part(seen, ',', 1)::bigint;
        first_hour := floor(first_second / unit)::bigint * (unit / 3600);
        last_hour := (floor(last_second / unit)::bigint + 1) * (unit / 3600) - 1;
        -- The hours at both ends stand for all of time beyond them.
        IF first_hour <= {low} / 3600 THEN
            first_hour := -1000000000;
        END IF;
        IF last_hour >= {high} / 3600 THEN
            last_hour := 1000000000;
        END IF;
        INSERT INTO tallymark.mark (capture, axis, first_hour, last_hour)
        VALUES ('{name}', axis, first_hour, last_hour);
        seen := unit || key || substr(seen, length(unit::text) + 2);
        IF unit = 3600 AND octet_length(seen) > {hours_max} THEN
            seen := '86400,';
        ELSIF unit = 86400 AND octet_length(seen) > {days_max} THEN
            seen := '2764800,';
        END IF;
    END IF;
    PERFORM set_config('tallymark.{name}', seen, true);
    RETURN seen;
END
$capture$
