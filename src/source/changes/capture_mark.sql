CREATE OR REPLACE FUNCTION tallymark.{name}_mark(
    relation oid, axis text, key text, first_second double precision, last_second double precision
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {quote}
-- Adds a mark, and returns the list of this transaction's marks, or NULL if there is nothing more
-- to mark. A call without a key is for the transaction's first late row, of this relation. A call
-- without a relation is for a TRUNCATE. Past {hours_max} bytes of hours the unit is a day, past
-- {days_max} bytes of days it is 32 days. Marks are only ever added, so that writers never wait for
-- each other.
DECLARE
    seen text := coalesce(current_setting('tallymark.{name}', true), '');
    unit bigint := CASE WHEN starts_with(seen, '3600;') THEN 3600 WHEN starts_with(seen, '86400;') THEN 86400
        WHEN starts_with(seen, '2764800;') THEN 2764800 END;
    first bigint;
    last bigint;
    place tid;
BEGIN
    IF key IS NULL THEN
        -- A renamed column or a missing table of marks must not break the application's writes.
        -- `tallymark check` reports both.
        IF to_regclass('tallymark.mark') IS NULL THEN
            RETURN NULL;
        END IF;
        IF relation IS NOT NULL AND {columns_max} = (
            SELECT count(*) FROM pg_attribute
            WHERE attrelid = relation AND NOT attisdropped AND attname IN ({columns})
        ) THEN
            seen := '3600;';
        ELSE
            -- `*(0,7)`: all of time is marked, at that place.
            IF relation IS NOT NULL AND translate(seen, '0123456789', '') = '*(,)' THEN
                PERFORM FROM tallymark.mark m
                WHERE m.ctid = substr(seen, 2)::tid AND m.xact = pg_current_xact_id()
                    AND m.marked_at >= transaction_timestamp() AND m.capture = '{name}'
                    AND m.first_hour IS NULL;
                IF FOUND THEN
                    RETURN NULL;
                END IF;
            END IF;
            FOR axis IN VALUES {everything} LOOP
                INSERT INTO tallymark.mark (capture, axis, xact)
                VALUES ('{name}', axis, pg_current_xact_id()) RETURNING ctid INTO place;
            END LOOP;
            PERFORM set_config('tallymark.{name}', '*' || place::text, true);
            RETURN NULL;
        END IF;
    ELSE
        first := floor(first_second / unit)::bigint * (unit / 3600);
        last := (floor(last_second / unit)::bigint + 1) * (unit / 3600) - 1;
        -- The hours at both ends include all of time beyond them.
        IF first <= {low} / 3600 THEN
            first := -1000000000;
        END IF;
        IF last >= {high} / 3600 THEN
            last := 1000000000;
        END IF;
        INSERT INTO tallymark.mark (capture, axis, first_hour, last_hour, xact)
        VALUES ('{name}', axis, first, last, pg_current_xact_id()) RETURNING ctid INTO place;
        seen := unit::text || key || place::text || ';' || substr(seen, length(unit::text) + 2);
        IF unit = 3600 AND octet_length(seen) > {hours_max} THEN
            seen := '86400;';
        ELSIF unit = 86400 AND octet_length(seen) > {days_max} THEN
            seen := '2764800;';
        END IF;
    END IF;
    PERFORM set_config('tallymark.{name}', seen, true);
    RETURN seen;
END
