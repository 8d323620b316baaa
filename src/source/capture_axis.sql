    IF {value} IS NOT NULL AND pg_catalog.strpos(seen, {key}) OPERATOR(pg_catalog.=) 0 THEN
        seen := tallymark.{name}_mark(NULL, {axis}, {key}, {first}, {last});
    END IF;
