-- The places in the list of functions that the schema `tallymark` lacks, or has with another body. PostgreSQL
-- calls the body of every aggregate `aggregate_dummy`.
SELECT w.place
FROM (VALUES {wanted}) AS w (place, name, arguments, body)
WHERE NOT EXISTS (
    SELECT FROM pg_proc p
    WHERE p.pronamespace = to_regnamespace('tallymark') AND p.proname = w.name
      AND oidvectortypes(p.proargtypes) = w.arguments AND p.prosrc = w.body AND NOT p.prosecdef
      AND p.proconfig IS NULL AND p.provolatile = 'i' AND p.proparallel = 's'
)
ORDER BY w.place
