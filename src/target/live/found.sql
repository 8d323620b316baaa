-- What has the names of a live view and of its function, and their comments.
SELECT (SELECT c.relkind = 'v' FROM pg_class c WHERE c.oid = to_regclass({view})) AS is_view,
    obj_description(to_regclass({view}), 'pg_class') AS view,
    obj_description(to_regprocedure({function} || '()'), 'pg_proc') AS function,
    current_setting('search_path') AS path
