-- Whether a function of the unique indexes has the right definition, and the indexes that use it.
SELECT p.prosrc = {body} AND p.provolatile = 'i' AND p.proconfig IS NULL AND NOT p.proisstrict
           AND NOT p.prosecdef AS fits,
       ARRAY(SELECT DISTINCT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
             FROM pg_depend d
             JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'i'
             JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_proc'::regclass
               AND d.refobjid = p.oid ORDER BY 1) AS indexes
FROM pg_proc p
WHERE p.pronamespace = to_regnamespace('tallymark') AND p.proname = {name}
  AND oidvectortypes(p.proargtypes) = {arguments}
