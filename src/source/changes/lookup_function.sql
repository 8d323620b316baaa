CREATE OR REPLACE FUNCTION tallymark.{name}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {quote}
-- Marks the key of a changed row of a lookup for Tallymark, before and after the change. The trigger's
-- WHEN condition decides which update matters. Marks are only ever added, so that writers never wait
-- for each other.
DECLARE
    old_key text[];
    new_key text[];
BEGIN
    -- A renamed column or a missing table of marks must not break the application's writes.
    -- `tallymark check` reports both.
    IF to_regclass('tallymark.lookup_mark') IS NULL THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'TRUNCATE' OR {keys_max} <> (
        SELECT count(*) FROM pg_attribute
        WHERE attrelid = TG_RELID AND NOT attisdropped AND attname IN ({keys})
    ) THEN
        INSERT INTO tallymark.lookup_mark (lookup) VALUES ('{name}');
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        old_key := ARRAY[{old}];
    END IF;
    IF TG_OP <> 'DELETE' THEN
        new_key := ARRAY[{new}];
    END IF;
    -- A key with NULL has no rows.
    INSERT INTO tallymark.lookup_mark (lookup, key)
    SELECT '{name}', key FROM (SELECT old_key AS key UNION SELECT new_key) changed
    WHERE key IS NOT NULL AND array_position(key, NULL) IS NULL;
    RETURN NULL;
END
