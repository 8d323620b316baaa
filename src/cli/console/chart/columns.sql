SELECT a.attname::text AS name
FROM pg_attribute a
WHERE a.attrelid = to_regclass({series}) AND a.attnum > 0 AND NOT a.attisdropped
    AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype,
        'float4'::regtype, 'float8'::regtype)
ORDER BY a.attnum
