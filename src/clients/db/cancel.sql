-- Cancels Tallymark's statements on the backends of its open transactions. Behind a pooler a
-- backend serves other clients as soon as the transaction has ended. The name, which each
-- transaction sets for itself, and the state show whether it is still the same.
SELECT pg_catalog.pg_cancel_backend(pid)
FROM pg_catalog.pg_stat_activity
WHERE pid = ANY ('{pids}'::int[])
  AND state = 'active'
  AND application_name LIKE 'tallymark %'
  AND pid <> pg_catalog.pg_backend_pid()
