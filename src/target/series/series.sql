-- The comments of a rollup's series and of the type of its rows, and whether these exist.
SELECT to_regprocedure({function}) IS NOT NULL AS has_function,
    obj_description(to_regprocedure({function}), 'pg_proc') AS function,
    to_regtype({name}) IS NOT NULL AS has_type,
    obj_description(to_regtype({name}), 'pg_type') AS type
