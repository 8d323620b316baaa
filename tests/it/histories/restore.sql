-- Copies of the rows of some tables, which a restore puts back as a physical one would leave them.
CREATE SCHEMA backup;
CREATE TABLE backup.rows (place text NOT NULL, doc jsonb NOT NULL);
CREATE FUNCTION backup.take(places text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    place text;
BEGIN
    DELETE FROM backup.rows;
    FOREACH place IN ARRAY places LOOP
        EXECUTE format('INSERT INTO backup.rows SELECT %1$L, to_jsonb(t) FROM %1$s t', place);
    END LOOP;
END $$;
-- In the order of `places`: what triggers write into one of them goes when its turn comes.
CREATE FUNCTION backup.put(places text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    place text;
    columns text;
BEGIN
    FOREACH place IN ARRAY places LOOP
        SELECT string_agg(quote_ident(attname), ', ') INTO columns FROM pg_attribute
        WHERE attrelid = place::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
        EXECUTE format('DELETE FROM %s', place);
        EXECUTE format('INSERT INTO %1$s (%2$s) OVERRIDING SYSTEM VALUE SELECT %2$s FROM backup.rows b, '
            'LATERAL jsonb_populate_record(NULL::%1$s, b.doc) r WHERE b.place = %3$L', place, columns, place);
    END LOOP;
END $$;
