-- The columns of a table or view.
SELECT attname, attnum, atttypid, atttypmod, attcollation FROM pg_attribute
WHERE attrelid = to_regclass({relation}) AND attnum > 0 AND NOT attisdropped
