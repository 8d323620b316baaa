    IF {value} IS NOT NULL THEN
        key := ',{place}:' OPERATOR(pg_catalog.||) {key} OPERATOR(pg_catalog.||) ',';
        IF pg_catalog.strpos(seen, key) OPERATOR(pg_catalog.=) 0 THEN
            seen := tallymark.{name}_mark(NULL, {axis}, key, {first}, {last});
        END IF;
    END IF;
