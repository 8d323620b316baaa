    IF {value} IS NOT NULL THEN
        key := {key};
        place := pg_catalog.split_part(pg_catalog.split_part(seen, key, 2), ';'::pg_catalog.text, 1);
        IF pg_catalog.translate(place, '0123456789'::pg_catalog.text, ''::pg_catalog.text)
            OPERATOR(pg_catalog.=) '(,)'::pg_catalog.text
        THEN
            PERFORM FROM tallymark.mark m
            WHERE m.ctid OPERATOR(pg_catalog.=) place::pg_catalog.tid
                AND m.xact OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id()
                AND m.marked_at OPERATOR(pg_catalog.>=) pg_catalog.transaction_timestamp()
                AND m.capture OPERATOR(pg_catalog.=) '{name}'::pg_catalog.text
                AND m.axis OPERATOR(pg_catalog.=) {axis}::pg_catalog.text
                AND m.first_hour OPERATOR(pg_catalog.<=) {first_hour}
                AND m.last_hour OPERATOR(pg_catalog.>=) {last_hour};
            is_marked := FOUND;
        ELSE
            is_marked := false;
        END IF;
        IF NOT is_marked THEN
            seen := tallymark.{name}_mark(NULL::pg_catalog.oid, {axis}::pg_catalog.text, key, {first}, {last});
        END IF;
    END IF;
